"""The kernel, interpreted, against its reference in float64, on meshes, and compiled for TPUs and GPUs not here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from nla_jax.kernels import token_scores_gpu
from nla_jax.kernels import token_scores_reference as reference
from nla_jax.kernels.token_scores import FORMS, kernels_of, token_scores
from nla_jax.kernels.token_scores_tpu import BLOCK_BYTES, block_sizes
from nla_jax.models import token_scores as scores_of_model

HERE = Path(__file__).parent
SHAPES = {
  "odd": (150, 777, 33),
  "several blocks of rows": (1200, 130, 8),
  "whole blocks": (256, 1024, 128),
  "one row": (1, 5, 3),
}
forms = pytest.mark.parametrize("form", FORMS)


def _example(n, words, d, dtype=np.float32, seed=0):
  """Operands (logits of deviation 3), targets in the last words too, and the cotangents of both results."""
  random = np.random.default_rng(seed)
  hidden, matrix = random.normal(size=(n, d)), random.normal(size=(words, d)) * 3 / np.sqrt(d)
  hidden, matrix = (np.asarray(jnp.asarray(x, dtype)) for x in (hidden, matrix))
  targets = random.integers(0, words, n).astype(np.int32)
  targets[:3] = np.array([words - 1, words - 2, 0])[:n]
  return hidden, matrix, targets, random.normal(size=(2, n)).astype(np.float32)


def _run(score, hidden, matrix, targets, cotangents):
  """logprob, entropy, and the gradients of one loss of both."""

  def loss(hidden, matrix):
    logprob, entropy = score(hidden, matrix, targets)
    return jnp.sum(cotangents[0] * logprob + cotangents[1] * entropy), (logprob, entropy)

  (_, scores), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(hidden, matrix)
  return [np.asarray(x, np.float64) for x in (*scores, *gradients)]


def _exact(hidden, matrix, targets, cotangents):
  with jax.enable_x64(True):
    double = (jnp.asarray(np.asarray(x, np.float64)) for x in (hidden, matrix))
    return _run(reference.token_scores, *double, targets, cotangents.astype(np.float64))


def _kernel(dtype, form="tpu", interpret=True):
  return lambda *arguments: token_scores(*arguments, dtype, form=form, interpret=interpret)


def test_memory_and_copies_of_a_tpu_give_the_same():
  """The other interpreter simulates copies to vector memory, whose contents are NaN before."""
  example = _example(150, 777, 33)
  for found, expected in zip(
    _run(_kernel(jnp.float32, interpret=pltpu.InterpretParams()), *example),
    _run(_kernel(jnp.float32), *example),
  ):
    np.testing.assert_array_equal(found, expected)


@forms
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_both_gradients_are_the_references(shape, form, relative_error):
  """What a TPU's block reads past the end of an array is NaN when interpreted, so nothing passes by luck."""
  example = _example(*SHAPES[shape])
  for found, expected in zip(_run(_kernel(jnp.float32, form), *example), _exact(*example)):
    assert relative_error(found, expected) < 3e-6


@pytest.mark.parametrize("chunk", [128, 300, 777])
def test_chunks_of_a_gpus_gradient_need_not_divide_the_vocabulary(
  chunk, monkeypatch, relative_error
):
  """The last chunk then begins inside the one before, whose words it must not count again."""
  monkeypatch.setattr(token_scores_gpu, "CHUNK", chunk)
  example = _example(150, 777, 33)
  for found, expected in zip(_run(_kernel(jnp.float32, "gpu"), *example), _exact(*example)):
    assert relative_error(found, expected) < 3e-6


def test_the_reference_is_the_definition():
  hidden, matrix, targets, _ = _example(7, 11, 5)
  with jax.enable_x64(True):
    logprob, entropy = reference.token_scores(
      *(jnp.asarray(x, jnp.float64) for x in (hidden, matrix)), targets
    )
  logits = hidden.astype(np.float64) @ matrix.astype(np.float64).T
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  np.testing.assert_allclose(logprob, np.log(p[np.arange(7), targets]), rtol=1e-12)
  np.testing.assert_allclose(entropy, -(p * np.log(p)).sum(1), rtol=1e-12)


@forms
def test_bfloat16_operands_cost_one_rounding_of_the_logits_gradient(form):
  """Values of the same rounded operands differ by float32 sums alone. In the gradients dl is rounded to bfloat16, each
  element by at most 2⁻⁸ of itself, so dh = dlᵀ W differs by at most 2⁻⁸ · |dl|ᵀ|W| and dW by 2⁻⁸ · |dl||h|, element by
  element; 2 % of that is left to float32."""
  hidden, matrix, targets, cotangents = _example(150, 777, 33, jnp.bfloat16)
  # The gradients are taken in float32, so that only the kernel rounds.
  single = hidden.astype(np.float32), matrix.astype(np.float32)
  found = _run(_kernel(jnp.bfloat16, form), *single, targets, cotangents)
  expected = _exact(*single, targets, cotangents)
  for values, exact in zip(found[:2], expected[:2]):
    np.testing.assert_allclose(values, exact, atol=2e-5)
  logits = single[0].astype(np.float64) @ single[1].astype(np.float64).T
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  p, (g_logprob, g_entropy) = np.exp(log_p), cotangents[..., None]
  dl = g_logprob * (np.eye(777)[targets] - p) - g_entropy * p * (log_p + expected[1][:, None])
  bounds = np.abs(dl) @ np.abs(single[1]), np.abs(dl).T @ np.abs(single[0])
  for values, exact, bound in zip(found[2:], expected[2:], bounds):
    assert np.max(np.abs(values - exact) / bound) < 1.02 * 2**-8
    assert np.max(np.abs(values - exact) / bound) > 2**-13  # it does round


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_loss_module_gives_the_same_by_the_kernel_and_by_chunks(dtype, relative_error):
  hidden, matrix, targets, cotangents = _example(6 * 25, 301, 24)
  shaped = hidden.reshape(6, 25, 24), matrix, targets.reshape(6, 25), cotangents.reshape(2, 6, 25)
  by = lambda kernel: _run(
    lambda *arguments: scores_of_model.token_scores(*arguments, dtype, kernel=kernel, chunk=64),
    *shaped,
  )
  for found, expected in zip(by("on"), by("off")):
    assert relative_error(found, expected) < (3e-6 if dtype == jnp.float32 else 2e-3)


@forms
def test_logits_of_ten_thousand_and_equal_logits(form):
  """Logits are whole numbers, so float32 has them exactly."""
  random = np.random.default_rng(0)
  hidden = random.integers(-3, 4, (140, 20)).astype(np.float32)
  hidden[:70] *= 300
  hidden[70:73] = 0
  matrix = random.integers(-2, 3, (300, 20)).astype(np.float32)
  matrix[1] = matrix[0]
  assert np.max(np.abs(hidden @ matrix.T)) > 1e4
  targets = np.argmax(hidden @ matrix.T, 1).astype(np.int32)
  targets[:5] = 3
  example = hidden, matrix, targets, random.normal(size=(2, 140)).astype(np.float32)
  found, expected = _run(_kernel(jnp.float32, form), *example), _exact(*example)
  np.testing.assert_allclose(found[0], expected[0], rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(found[1], expected[1], rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(found[0][70:73], -np.log(300), rtol=1e-6)
  # The normaliser is rounded to half of float32's spacing at 1e4, so p is off by at most 2⁻¹¹ of itself.
  for values, exact in zip(found[2:], expected[2:]):
    assert np.max(np.abs(values - exact)) < 2**-11 * np.max(np.abs(exact))


@forms
def test_a_target_of_another_shard_picks_nothing_even_past_the_end_of_the_last_block(form):
  hidden, matrix, _, _ = _example(4, 200, 8)
  picked = kernels_of(form).statistics(
    *map(jnp.asarray, (hidden, matrix)), jnp.array([-1, 200, 255, 199]), True
  )[3]
  np.testing.assert_allclose(picked, [0, 0, 0, hidden[3] @ matrix[199]], rtol=1e-5)


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("gradient", [False, True])
def test_blocks_of_every_width_up_to_8192_fit(itemsize, gradient):
  for d in (32, 576, 896, 3584, 5376, 8192):
    kept, streamed = block_sizes(d, itemsize, gradient)
    assert kept % 128 == streamed % 128 == 0 and kept >= streamed >= 128
    assert (
      2 * d * (itemsize * (kept + streamed) + 4 * kept * gradient) + 16 * kept * streamed
      <= BLOCK_BYTES
    )


def test_on_a_mesh_values_and_gradients_are_those_of_one_device():
  """Vocabulary over `tensor`, width over `fsdp`, rows over both batch axes, and each where it does not divide."""
  environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8"}
  done = subprocess.run(
    [sys.executable, "-P", str(HERE / "meshes.py")],
    env=environment,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  errors = json.loads(done.stdout)
  assert len(errors) == 8  # four cases of both forms
  assert max(errors.values()) < 3e-6, errors


def _compiled(topologies: str, kernel: str) -> list[dict]:
  done = subprocess.run(
    [sys.executable, "-P", str(HERE / "compiled.py"), topologies, kernel],
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return list(json.loads(done.stdout).values())


def test_on_tpus_the_loss_module_takes_the_kernel_and_no_array_is_as_large_as_the_logits():
  """v5e, v5p and v6e, one chip and a mesh with the vocabulary over `tensor`, compiled without any of them."""
  pytest.importorskip("libtpu")
  assert _compiled("v5e:2x2,v5p:2x2x1,v6e:2x2", "auto") == 6 * [{"kernels": 3, "logits": False}]


def test_on_gpus_the_loss_module_takes_the_kernel_only_when_asked():
  """A100 and H100, one and four, compiled without any of them; the chunks have no kernel."""
  pytest.importorskip("jax_cuda13_plugin")
  assert _compiled("a100:4,h100:4", "on") == 4 * [{"kernels": 2, "logits": False}]
  assert [one["kernels"] for one in _compiled("a100:4,h100:4", "auto")] == 4 * [0]
