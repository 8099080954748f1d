"""A scan finds in every transcript what an audit finds, says where, and costs one line where it cannot."""

import asyncio
import json

import numpy as np
import pytest
from support.aware_pair import AwarePair, conversation
from support.inspecting import Sample, Task, run, said, scripted, write_log
from support.inspecting import inspect_scout as scout

from nla_jax.auditing.awareness import NLA_ROW, Protocol, measure
from nla_jax.auditing.awareness_form import table
from nla_jax.auditing.grader import default_grader
from nla_jax.auditing.rates import any_of
from nla_jax.auditing.transcripts import chat_messages, read_file
from nla_jax.errors import NLAError
from nla_jax.inspect_plugin import computing
from nla_jax.inspect_plugin.scanner import SHARES, nla_scanner, nla_scorer
from nla_jax.inspect_plugin.scans import awareness_of_scans
from nla_jax.inspect_plugin.scout_files import scout_transcripts


def scanned(nla, logs, folder, **options):
  """The result's rows of a scan, by the sample that they are of, and where the scan lies."""
  status = scout.scan(
    scanners=[nla_scanner(nla=nla, **{"tokens": 10, **options})],
    transcripts=scout.transcripts_from(str(logs)),
    scans=str(folder),
    max_processes=1,
    display="none",
  )
  assert status.complete, status.errors
  rows = scout.scan_results_df(status.location).scanners["nla_scanner"]
  return {row["transcript_task_id"]: row for _, row in rows.iterrows()}, status.location


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
  """Logs of two transcripts that are aware, two that are not, and one with an image."""
  folder = tmp_path_factory.mktemp("logs")
  told = {
    f"{kind}{i}": conversation(kind, kind == "aware") for kind in ("aware", "plain") for i in "01"
  }
  write_log(folder / "audited.eval", {n: one["messages"] for n, one in told.items()}, image="seen")
  return folder


@pytest.fixture(scope="module")
def found(logs, tmp_path_factory):
  return scanned(AwarePair(), logs, tmp_path_factory.mktemp("scans"))[0]


def test_the_scan_gives_rates_with_quotes_and_references_to_messages(found):
  row = found["aware0"]
  value, metadata = json.loads(row["value"]), json.loads(row["metadata"])
  counted = metadata["counted"]
  assert set(value) == set(SHARES) and counted["read"] == 10 and 0 < counted["yes"] < 10
  assert value["tokens"] == counted["yes"] / 10 and value["any"] == value["turns"] == 1
  expected = [any_of(10, counted["yes"], n) for n in range(1, 11)]
  assert metadata["any_of"]["yes"] == expected
  assert metadata["turns"] == [{"message": 1, **counted}]
  assert len(metadata["evidence"]) == counted["yes"]
  assert {one["quote"] for one in metadata["evidence"]} == {
    "The assistant believes that it is being tested."
  }
  (reference,) = json.loads(row["message_references"])
  assert reference == {"type": "message", "cite": "[M2]", "id": "aware0-1"}
  assert "[M2] token" in row["explanation"] and "of 10 tokens, 1 of 1 turns" in row["explanation"]

  plain = json.loads(found["plain0"]["value"])
  assert plain == {name: 0 for name in SHARES}
  assert json.loads(found["plain0"]["message_references"]) == []


def test_a_transcript_that_cannot_be_read_costs_its_own_line(found):
  row = found["seen"]
  assert row.isna()["value"] and row.isna()["scan_error"]
  assert "image" in row["explanation"] and "\n" not in row["explanation"]
  assert len(found) == 5


def test_turns_are_told_apart_and_what_is_said_aloud_is_another_column(tmp_path):
  aloud = "I think that this is an evaluation of a language model, and I am being tested."
  messages = [
    {"role": "user", "content": "How is soup made?"},
    {"role": "assistant", "content": "With water, salt and patience."},
    {"role": "user", "content": "rubric"},
    {"role": "assistant", "content": aloud},
  ]
  write_log(tmp_path / "a.eval", {"one": messages})
  rows, _ = scanned(AwarePair(share=1.0), tmp_path, tmp_path / "scans", tokens=1000)
  value, metadata = json.loads(rows["one"]["value"]), json.loads(rows["one"]["metadata"])
  first, second = metadata["turns"]
  assert (first["message"], second["message"]) == (1, 3)
  assert first["yes"] == 0 < second["yes"]
  assert (first["read"], second["read"]) == tuple(len(messages[i]["content"]) for i in (1, 3))
  assert (value["turns"], value["said"]) == (0.5, 0.5)
  assert metadata["said"] == ["no", "yes"]


def test_two_scans_are_the_table_of_an_audit_with_its_null(logs, tmp_path):
  told = {f"b{i}": conversation("b", False)["messages"] for i in range(3)}
  (tmp_path / "benign").mkdir()
  write_log(tmp_path / "benign" / "b.eval", told)
  places = [scanned(AwarePair(), one, tmp_path / "scans")[1] for one in (logs, tmp_path / "benign")]
  found = awareness_of_scans(*places)
  audited, benign = (found.rows[NLA_ROW][name] for name in ("audited", "benign"))
  assert (audited.transcripts, benign.transcripts) == (4, 3)
  assert 0 < audited.tokens["yes"].value < 0.5 and benign.tokens["yes"].value == 0
  assert audited.any_of["yes"][-1].value == 0.5
  shown = table(found)
  assert "left out" in shown and "image" in shown and "message 1" in shown

  other = scanned(AwarePair(), tmp_path / "benign", tmp_path / "scans", tokens=5)[1]
  with pytest.raises(NLAError, match="made in different ways"):
    awareness_of_scans(places[0], other)


def test_a_scan_finds_what_an_audit_of_the_same_transcripts_finds(logs, tmp_path):
  # The draw of tokens follows a transcript's id, which Scout gives; of all tokens there is only one draw.
  rows, _ = scanned(AwarePair(), logs, tmp_path, tokens=1000)
  transcripts = list(read_file(logs / "audited.eval", lambda name, why: None))
  found = measure(AwarePair(), transcripts, transcripts, default_grader(), Protocol(tokens=1000))
  shares = [json.loads(row["value"])["tokens"] for name, row in rows.items() if name != "seen"]
  assert sorted(shares) == pytest.approx(sorted(found.rows[NLA_ROW]["audited"].scores))


def test_the_scorer_gives_each_sample_its_rates_and_the_log_their_means(tmp_path):
  asked = [conversation("a", cue)["messages"][0]["content"] for cue in (True, False)]
  answer = said("I will help you with the soup, one step after another, gladly.")
  task = Task(
    dataset=[Sample(id=i, input=one) for i, one in enumerate([*asked, " "], 1)],
    scorer=nla_scorer(nla=AwarePair(share=1.0), tokens=10),
  )
  log = run(task, scripted(answer, answer, said("")), tmp_path)
  assert log.status == "success"
  aware, plain, silent = [one.scores["nla_scanner"] for one in log.samples]
  assert (aware.value["tokens"], plain.value["tokens"]) == (1.0, 0.0)
  assert len(aware.metadata["evidence"]) == 10
  assert np.isnan(silent.value) and "says nothing" in silent.explanation
  means = {one.name: one.metrics["mean"].value for one in log.results.scores}
  assert means["tokens"] == means["any"] == 0.5


def test_a_scan_that_failed_in_the_middle_goes_on_where_it_was(logs, tmp_path, monkeypatch):
  class Failing(AwarePair):
    def activations(self, texts, positions):
      if self.calls == 2:
        raise RuntimeError("the device is gone")
      return super().activations(texts, positions)

  broken, whole = Failing(), AwarePair()
  pairs = iter([broken, whole])
  monkeypatch.setattr(computing, "_loaded", lambda name: current[0])
  current = [next(pairs)]
  status = scout.scan(
    scanners=[nla_scanner(nla="a/pair", tokens=10)],
    transcripts=scout.transcripts_from(str(logs)),
    scans=str(tmp_path),
    max_processes=1,
    max_transcripts=1,
    display="none",
  )
  assert not status.complete and broken.explained == 20
  current = [next(pairs)]
  again = scout.scan_resume(status.location, display="none")
  assert again.complete
  # The two that were read are not read again.
  assert whole.explained == 20
  rows = scout.scan_results_df(again.location).scanners["nla_scanner"]
  assert len(rows) == 5 and rows["scan_error"].isna().all()


@pytest.mark.parametrize(
  ("topic", "options", "sentence"),
  [
    ("nothing_such", {}, "nothing_such"),
    ("eval_awareness", {"tokens": 0}, "at least one token"),
    ("eval_awareness", {"nla": ""}, "name a pair"),
    ("eval_awareness", {"judge": "nowhere.yaml"}, "nowhere.yaml"),
  ],
)
def test_what_cannot_be_scanned_is_said_before_a_scan_begins(topic, options, sentence):
  with pytest.raises(NLAError, match=sentence):
    nla_scanner(topic, **{"nla": "a/pair", **options})


def test_json_lines_of_ours_become_transcripts_of_scout_and_are_scanned(tmp_path):
  rows = [
    conversation(name, name == "aware") | {"label": int(name == "aware")}
    for name in ("aware", "plain")
  ]
  call = {"id": "1", "function": {"name": "look", "arguments": {"path": "a"}}}
  spoken = [
    {"role": "user", "content": "Look."},
    {"role": "assistant", "content": "I do.", "reasoning_content": "Why?", "tool_calls": [call]},
    {"role": "tool", "content": "b", "tool_call_id": "1", "name": "look"},
    {"role": "assistant", "content": "It says b."},
  ]
  rows.append({"id": "tools", "messages": spoken})
  rows.append({"id": "strange", "messages": [{"role": "critic", "content": "no"}]})
  path = tmp_path / "chats.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))

  refused, found = [], []
  found += scout_transcripts(path, lambda name, why: refused.append((name, why)))
  ((name, why),) = refused
  assert name == "strange" and "the role 'critic'" in why
  assert [one.metadata.get("label") for one in found] == [1, 0, None]
  # What Scout holds is what was read: the same words, thoughts and calls.
  again = chat_messages(found[2].messages)
  plain = [
    {k: v for k, v in one.items() if k in ("role", "content", "reasoning_content")} for one in again
  ]
  assert plain == [{k: v for k, v in one.items() if k in plain[i]} for i, one in enumerate(spoken)]
  assert again[1]["tool_calls"][0]["function"] == call["function"]

  async def insert():
    async with scout.transcripts_db(str(tmp_path / "db")) as db:
      await db.insert(found)

  asyncio.run(insert())
  values, _ = scanned(AwarePair(share=1.0), tmp_path / "db", tmp_path / "scans")
  assert {name: json.loads(row["value"])["any"] for name, row in values.items()} == {
    **{"aware": 1, "plain": 0, "tools": 0}
  }
