"""Logs of Inspect are read as transcripts: messages with tool calls, and a broken log costs one line."""

import zipfile

import pytest

from nla_jax.auditing.transcripts import read_file

log = pytest.importorskip("inspect_ai.log", reason="logs of Inspect need the extra `inspect`")
model = pytest.importorskip("inspect_ai.model")


@pytest.fixture
def written(tmp_path):
  """A log of two samples, made without any model: the second holds an image."""
  from inspect_ai._util.content import ContentImage
  from inspect_ai.dataset import Sample  # noqa: F401 - the package's parts load in this order
  from inspect_ai.tool import ToolCall

  call = ToolCall(id="1", function="look", arguments={"path": "a.txt"})
  spoken = [
    model.ChatMessageSystem(content="Be short."),
    model.ChatMessageUser(content="Which river?"),
    model.ChatMessageAssistant(content="I look.", tool_calls=[call]),
    model.ChatMessageTool(content="Seine", tool_call_id="1", function="look"),
    model.ChatMessageAssistant(content="The Seine."),
  ]
  seen = [model.ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AA==")])]
  samples = [
    log.EvalSample(id=name, epoch=1, input="x", target="y", messages=messages)
    for name, messages in (("a", spoken), ("b", seen))
  ]
  spec = log.EvalSpec(
    created="2026-01-01T00:00:00+00:00",
    task="t",
    dataset=log.EvalDataset(samples=2, sample_ids=["a", "b"]),
    model="none/none",
    config=log.EvalConfig(epochs=1),
  )
  path = tmp_path / "one.eval"
  log.write_eval_log(log.EvalLog(eval=spec, samples=samples, status="success"), str(path))
  return path


def read(path):
  refused = []
  found = list(read_file(path, lambda name, why: refused.append((name, why))))
  return found, refused


def test_a_log_is_its_samples_and_an_image_costs_its_own_sample(written):
  (one,), refused = read(written)
  assert one.id == "one#a.1"
  assert [message["role"] for message in one.messages] == [
    *("system", "user", "assistant", "tool", "assistant")
  ]
  assert one.messages[2]["tool_calls"][0]["function"]["name"] == "look"
  assert one.messages[-1]["content"] == "The Seine."
  ((name, why),) = refused
  assert name == "one#b.1" and "image" in why and "\n" not in why


@pytest.mark.parametrize("kind", ["cut", "junk", "empty", "zip", "json"])
def test_a_broken_log_is_one_line(written, tmp_path, kind):
  whole = written.read_bytes()
  path = tmp_path / ("broken.json" if kind == "json" else "broken.eval")
  content = {"cut": whole[: len(whole) // 2], "junk": b"hello", "empty": b"", "json": b"{}"}
  if kind == "zip":
    with zipfile.ZipFile(path, "w") as file:
      file.writestr("header.json", "[]")
  else:
    path.write_bytes(content[kind])
  found, ((name, why),) = read(path)
  assert found == [] and name == path.name and "cannot be read as a log" in why and "\n" not in why
