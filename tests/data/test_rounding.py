"""Activations kept in fewer bytes: what is read back is what the rounding allows, and a run says how it keeps them."""

import ml_dtypes
import numpy as np
import pytest
from ml_collections import ConfigDict

from nla_jax.data.store import rounding
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.store import Store
from nla_jax.data.store.writer import StoreWriter
from nla_jax.errors import NLAError

WIDTH = 128


@pytest.fixture(scope="module")
def rows():
  """As a residual stream is: a few entries a thousand times as large as the others, a row of zeros, tiny rows."""
  found = np.random.default_rng(0).normal(size=(40, WIDTH)).astype(np.float32)
  found[:, 3] *= 1000
  found[7] = 0
  found[8] *= 1e-20
  return found


def _through(kept_as: str, rows: np.ndarray) -> np.ndarray:
  kept = rounding.rounded(rows, kept_as)
  return rounding.restored(kept["activations"], kept.get(rounding.SCALES))


@pytest.mark.parametrize("kept_as", rounding.ROWS)
def test_a_store_gives_back_float32_of_what_it_kept(kept_as, rows, tmp_path):
  specs = rounding.array_specs(kept_as, WIDTH) | {"document": ((), "int32")}
  writer = StoreWriter(str(tmp_path), specs, len(rows), 20, 10)
  for shard in range(2):
    part = rows[shard * 20 : shard * 20 + 20]
    columns = rounding.rounded(part, kept_as) | {"document": np.zeros(20, np.int32)}
    assert {name: value.dtype.name for name, value in columns.items()} == {
      name: dtype for name, (_, dtype) in specs.items()
    }
    writer.write_shard(shard, columns)
  writer.write_documents([StoredDocument("a", "a", "rl", np.zeros(1, np.int32))])
  writer.finish()

  store = Store(str(tmp_path))
  store.verify()
  found = store.read("activations", [9, 3, 33])
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, _through(kept_as, rows)[[9, 3, 33]])
  np.testing.assert_array_equal(store.read("activations", slice(0, 40)), _through(kept_as, rows))


def test_float32_is_kept_as_it_is_and_bfloat16_is_the_nearest(rows):
  np.testing.assert_array_equal(_through("float32", rows), rows)
  np.testing.assert_array_equal(
    _through("bfloat16", rows), rows.astype(ml_dtypes.bfloat16).astype(np.float32)
  )


def test_int8_errs_by_at_most_half_a_step_of_its_group(rows):
  found = _through("int8", rows)
  groups = np.abs(rows.reshape(40, -1, rounding.GROUP)).max(-1)
  steps = np.repeat(groups / 127, rounding.GROUP, axis=1)
  assert (np.abs(found - rows) <= steps / 2 * (1 + 1e-5)).all()
  assert not found[7].any() and np.isfinite(found).all()
  # A row of outliers costs its own group alone.
  beside = np.abs(found - rows)[:7, rounding.GROUP :]
  assert beside.max() < 0.02


def test_what_cannot_be_kept_so_is_refused():
  with pytest.raises(NLAError, match="expected float32 or bfloat16 or int8"):
    rounding.check("float16", 64)
  with pytest.raises(NLAError, match="width 100 do not divide into groups of 64"):
    rounding.check("int8", 100)
  rounding.check("bfloat16", 100)


def test_extraction_keeps_rows_as_the_config_says(tmp_path):
  from nla_jax.config import load_config
  from nla_jax.run.run import begin
  from nla_jax.run.stages import extract

  found = {}
  for kept_as in rounding.ROWS:
    config = load_config("configs/tiny.py", {"data.rows": kept_as, "data.max_documents": 6})
    with begin(config, tmp_path / kept_as) as run:
      assert isinstance(run.config, ConfigDict)
      extract(run)
      found[kept_as] = run.store.read("activations", slice(0, 99))
      assert run.store.manifest["arrays"]["activations"]["dtype"] == kept_as
  for kept_as in ("bfloat16", "int8"):
    np.testing.assert_array_equal(found[kept_as], _through(kept_as, found["float32"]))
