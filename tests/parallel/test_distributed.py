"""Processes with different sources are not one run, whichever file differs."""

import importlib.machinery
import shutil
from pathlib import Path

import pytest

from nla_jax.parallel import distributed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  """A copy of the sources that `code_version` takes for its own: kernels/ beside nla_jax/, as in a checkout."""
  for folder in ("nla_jax", "kernels"):
    shutil.copytree(
      ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "kernels")
    )
  monkeypatch.setattr(distributed, "__file__", str(tmp_path / "nla_jax/parallel/distributed.py"))
  _kernels_lie_in(tmp_path / "kernels", monkeypatch)
  return tmp_path


def _kernels_lie_in(folder: Path, monkeypatch) -> None:
  spec = importlib.machinery.ModuleSpec("nla_jax.kernels", None, is_package=True)
  spec.submodule_search_locations = [str(folder)]
  monkeypatch.setattr(distributed.importlib.util, "find_spec", lambda name: spec)


@pytest.mark.parametrize("file", ["nla_jax/config.py", "kernels/token_scores_tpu.py"])
def test_a_changed_source_is_another_version(file, checkout):
  before = distributed.code_version()
  assert distributed.code_version() == before
  with open(checkout / file, "a") as source:
    source.write("# changed\n")
  assert distributed.code_version() != before


def test_the_version_does_not_depend_on_where_the_kernels_lie(checkout, monkeypatch):
  """Installed, the kernels are a folder of the package."""
  before = distributed.code_version()
  installed = checkout / "nla_jax" / "kernels"
  shutil.move(checkout / "kernels", installed)
  _kernels_lie_in(installed, monkeypatch)
  assert distributed.code_version() == before
