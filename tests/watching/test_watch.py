"""A folder is watched whole: what cannot be read costs itself alone, a stop costs nothing, and texts are no markup."""

import json

import pytest
from support.browser import tiny_pair

from nla_jax.cli import watch as command
from nla_jax.errors import NLAError
from nla_jax.json_lines import read_lines
from nla_jax.watching.watch import BENIGN, JOURNAL

HOSTILE = "<script>window.hit=1</script>"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
  folder = tmp_path_factory.mktemp("pair")
  tiny_pair(folder)
  return folder


def chat(answer: str, **more) -> dict:
  said = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": answer}]
  return {"messages": said, **more}


@pytest.fixture
def folder(tmp_path):
  found = tmp_path / "chats"
  (found / "more").mkdir(parents=True)
  lines = [
    json.dumps(chat("The Seine, of course.", id="a")),
    json.dumps({"messages": [{"role": "user", "content": "no answer"}], "id": "b"}),
    "{broken",
    json.dumps(chat(HOSTILE, id=HOSTILE)),
  ]
  (found / "one.jsonl").write_text("\n".join(lines) + "\n")
  (found / "more" / "two.jsonl").write_text(json.dumps({"messages": [{"role": "?"}]}) + "\n")
  (found / "notes.md").write_text("not a transcript")
  return found


@pytest.fixture
def grader(tmp_path):
  path = tmp_path / "letters.yaml"
  # Random weights write random bytes: some have a letter of the first half of the alphabet.
  path.write_text(
    "topic: letters\nquestion: Has it letters?\nyes: ['.*[a-m].*']\nunclear: ['.*[n-z].*']\n"
  )
  return path


def run(pair, folder, out, grader, *more) -> int:
  return command.main(
    [str(folder), f"--nla={pair}", f"--out={out}", f"--grader={grader}", "--budget=4", *more]
  )


def test_every_transcript_is_watched_or_says_why_not(pair, folder, tmp_path, grader, capsys):
  out = tmp_path / "out"
  assert run(pair, folder, out, grader) == 0
  lines = {line["name"]: line for line in read_lines(out / JOURNAL)}
  assert set(lines) >= {"one.jsonl: a", f"one.jsonl: {HOSTILE}"}
  first = lines["one.jsonl: a"]
  assert len(first["explained"]) == 4 and first["rates"]["yes"] is not None
  assert all(one["token"] in "The Seine, of course.<|im_end|>\n" for one in first["explained"])

  refused = {name: line["refused"] for name, line in lines.items() if "refused" in line}
  assert len(refused) == 3 and all("\n" not in reason for reason in refused.values())
  assert "assistant" in refused["one.jsonl: b"]
  assert any("line 3" in reason for reason in refused.values())

  page = (out / "watch.html").read_text()
  assert HOSTILE not in page and "&lt;script&gt;" in page
  summary = json.loads((out / "summary.json").read_text())
  assert len(summary["transcripts"]) == 2 and summary["alerts"] == 0
  assert summary["cost"]["explanations"] == 8


def test_a_stop_costs_nothing_and_what_is_new_is_added(pair, folder, tmp_path, grader, monkeypatch):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  run(pair, folder, whole, grader)

  # Killed behind the first line, which is on the disk by then.
  from nla_jax.watching.watch import Watcher

  real = Watcher._line

  def once(self, name, one):
    if read_lines(parts / JOURNAL):
      raise KeyboardInterrupt
    return real(self, name, one)

  monkeypatch.setattr(Watcher, "_line", once)
  with pytest.raises(KeyboardInterrupt):
    run(pair, folder, parts, grader)
  held = len(read_lines(parts / JOURNAL))
  monkeypatch.setattr(Watcher, "_line", real)
  run(pair, folder, parts, grader)

  def words(out):
    lines = read_lines(out / JOURNAL)
    return {(line["name"], *(one["text"] for one in line.get("explained", ()))) for line in lines}

  assert 0 < held < len(read_lines(parts / JOURNAL)) and words(whole) == words(parts)
  (folder / "new.jsonl").write_text(json.dumps(chat("Newer.", id="n")) + "\n")
  run(pair, folder, parts, grader)
  assert "new.jsonl: n" in {name for name, *_ in words(parts)}


def test_benign_transcripts_are_the_null_and_too_few_are_refused(pair, folder, tmp_path, grader):
  benign = tmp_path / "benign"
  benign.mkdir()
  lines = [json.dumps(chat(f"It is number {i}.", id=str(i))) for i in range(5)]
  (benign / "benign.jsonl").write_text("\n".join(lines))
  with pytest.raises(NLAError, match=r"needs 19 benign transcripts, and .* has 5"):
    run(pair, folder, tmp_path / "few", grader, f"--benign={benign}")

  out = tmp_path / "out"
  assert run(pair, folder, out, grader, f"--benign={benign}", "--false-alarms=0.2") == 0
  assert len(read_lines(out / BENIGN)) == 5
  summary = json.loads((out / "summary.json").read_text())
  assert summary["benign"]["transcripts"] == 5
  assert all(0 < one["p"] <= 1 for one in summary["transcripts"])
  # The reference scores tokens, so half of the budget went by it.
  first = read_lines(out / JOURNAL)[0]
  assert sum(one["by_score"] for one in first.get("explained", ())) in (0, 2)


def test_the_gate_of_a_release(pair, folder, tmp_path, grader):
  out = tmp_path / "out"
  assert run(pair, folder, out, grader, "--fail-above=1.0") == 0
  rate = json.loads((out / "summary.json").read_text())["rates"]["yes"]["value"]
  expected = command.ABOVE if rate > 0 else 0
  assert run(pair, folder, out, grader, "--fail-above=0.0") == expected
  # What cannot be known does not pass.
  nothing = tmp_path / "nothing"
  nothing.mkdir()
  (nothing / "x.jsonl").write_text("{")
  assert run(pair, nothing, tmp_path / "none", grader, "--fail-above=0.5") == command.ABOVE


@pytest.mark.parametrize(
  "more, words",
  [
    (("--budget=0",), "--budget=0: at least one"),
    (("--seconds=-1",), "--seconds=-1"),
    (("--false-alarms=1",), "--false-alarms=1"),
    (("--grader=nobody",), "nobody"),
  ],
)
def test_what_cannot_work_is_said_before_loading(pair, folder, tmp_path, grader, more, words):
  with pytest.raises(NLAError, match=words):
    run(pair, folder, tmp_path / "out", grader, *more)
  with pytest.raises(NLAError, match=r"is no folder"):
    run(pair, tmp_path / "gone", tmp_path / "out", grader)


def test_another_way_of_watching_needs_another_folder(pair, folder, tmp_path, grader):
  out = tmp_path / "out"
  run(pair, folder, out, grader)
  with pytest.raises(NLAError, match=r"seed \(begun with 0, now 1\)"):
    run(pair, folder, out, grader, "--seed=1")
