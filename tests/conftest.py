"""What all tests share: the platform, and a tiny language model with weights large enough to matter."""

import importlib.metadata
import os
import platform
from pathlib import Path

from support.run_process import FAST_COMPILE

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault(
  "OMP_WAIT_POLICY", "passive"
)  # torch's threads leave the cores to the other worker's tests
# Compiling is most of the suite's time (5 s for the gradient of a tiny model, 0.1 s from this cache), and the tests
# that kill a stage compile the same programs in process after process. Each worker has a cache of its own, since jax
# does not write entries atomically.
if FAST_COMPILE not in os.environ.get("XLA_FLAGS", ""):  # a worker is given its starter's
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_COMPILE}"
CACHE = Path(__file__).resolve().parent.parent / ".pytest_cache" / "jax"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
  CACHE / os.environ.get("PYTEST_XDIST_WORKER", "alone")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import install_import_hook

# Shapes and dtypes in the array code's signatures are checked in tests only. The hook stands before the first import.
CHECKED = ("nla_jax.models", "nla_jax.decoding", "nla_jax.training.losses", "nla_jax.kernels")
install_import_hook(CHECKED, "beartype.beartype")

from nla_jax.models.architectures import Architecture
from nla_jax.models.parameters import init_params

VERSIONS = (
  "jax",
  "flax",
  "optax",
  "orbax-checkpoint",
  "grain",
  "tensorstore",
  "transformers",
  "torch",
  "peft",
)


def pytest_addoption(parser):
  parser.addoption("--long", action="store_true", help="also the tests that take minutes each")


def pytest_collection_modifyitems(config, items):
  """Leaves the long tests out, unless they are asked for."""
  if config.getoption("--long"):
    return
  left_out = [item for item in items if item.get_closest_marker("long")]
  items[:] = [item for item in items if not item.get_closest_marker("long")]
  config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter):
  """The last lines say which versions passed or failed."""
  found = [f"Python {platform.python_version()}"]
  for name in VERSIONS:
    try:
      found.append(f"{name} {importlib.metadata.version(name)}")
    except importlib.metadata.PackageNotFoundError:
      found.append(f"{name} -")
  terminalreporter.write_line(", ".join(found))


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
  """Unloads what a file of tests compiled.

  Each loaded program holds about ten memory maps. A worker that kept all of its programs reached the kernel's 65,530
  (vm.max_map_count) at about 85 % of the suite, and the next program to be loaded ended it with a segmentation fault.
  """
  yield
  jax.clear_caches()


@pytest.fixture(scope="session")
def tiny_architecture():
  """A Llama of 4 blocks, width 32, whose vocabulary spans two blocks of the sampler's draw."""
  return Architecture(
    family="llama",
    vocab_size=300,
    d_model=32,
    n_layers=4,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    d_ff=48,
    rope_theta=1e4,
    rms_eps=1e-5,
    max_positions=512,
    tied=False,
  )


@pytest.fixture(scope="session")
def random_params():
  """A function from an architecture to random parameters, all leaves normal with deviation 0.3 (norms around 1)."""

  def make(architecture, seed=0):
    shapes = jax.eval_shape(lambda key: init_params(architecture, key), jax.random.key(0))
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    rng = np.random.default_rng(seed)
    mean = lambda path: 1 - architecture.norm_offset if "norm" in path[-1].key else 0
    draw = lambda path, leaf: jnp.asarray(rng.normal(mean(path), 0.3, leaf.shape), jnp.float32)
    return jax.tree.unflatten(tree, [draw(path, leaf) for path, leaf in leaves])

  return make


@pytest.fixture(scope="session")
def tiny_params(tiny_architecture, random_params):
  return random_params(tiny_architecture)


@pytest.fixture(scope="session")
def relative_error():
  """A function: the largest difference as a share of the largest expected magnitude."""

  def measure(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected))

  return measure
