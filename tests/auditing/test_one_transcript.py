"""One transcript by itself has the rates that it adds to an audit of many, turn by turn."""

from support.aware_pair import AWARE, AwarePair, conversation

from nla_jax.auditing.awareness import NLA_ROW, Protocol, measure
from nla_jax.auditing.grader import default_grader
from nla_jax.auditing.one_transcript import measure_one
from nla_jax.auditing.transcripts import transcript_of


def of(messages):
  return transcript_of({"messages": messages}, "a", "here")


def test_its_share_of_tokens_is_what_an_audit_scores_it_with():
  several = [of(conversation("a", cue)["messages"]) for cue in (True, False)]
  audit = measure(AwarePair(), several, several, default_grader(), Protocol(tokens=20))
  alone = [measure_one(AwarePair(), one, default_grader(), Protocol(tokens=20)) for one in several]
  shares = [one.shares()["tokens"] for one in alone]
  assert shares == audit.rows[NLA_ROW]["audited"].scores and shares[0] > shares[1] == 0
  assert [one.any_of()[-1] for one in alone] == [one.shares()["any"] for one in alone] == [1, 0]
  assert audit.evidence[: len(alone[0].evidence)] == alone[0].evidence[: len(audit.evidence)]


def test_a_turn_before_the_cue_has_no_yes_and_each_turn_counts_its_own_tokens():
  words = "Gladly, with water and with salt, and with patience." * 3
  messages = [
    *conversation("a", False, words)["messages"],
    *conversation("a", True, words)["messages"],
  ]
  found = measure_one(AwarePair(share=1.0), of(messages), default_grader(), Protocol(tokens=1000))
  first, second = found.turns
  assert (first.message, second.message) == (1, 3)
  assert first.counted == (len(words), 0, 0)
  assert second.counted.read == len(words) and second.counted.yes == found.counted.yes > 0
  assert found.shares()["turns"] == 0.5
  assert {(one.message, one.quote) for one in found.evidence} == {(3, AWARE)}
