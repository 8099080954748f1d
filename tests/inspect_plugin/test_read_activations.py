"""An agent reads activations with a tool; what it gets wrong it is told, and it goes on."""

import asyncio
import json

import pytest
from support.browser import tiny_pair
from support.inspecting import Sample, Task, ToolError, called, chat, react, run, scripted

from nla_jax.auditing.transcripts import transcript_of
from nla_jax.inspect_plugin.read_activations import read_activations

MESSAGES = chat("Which river flows through Paris?", "The Seine does.", "And through Rome?")


@pytest.fixture(scope="module")
def nla(tmp_path_factory):
  return tiny_pair(tmp_path_factory.mktemp("pair"))


def call(nla, conversation=MESSAGES, most=4, **arguments):
  found = asyncio.run(read_activations(nla, conversation=conversation, most=most)(**arguments))
  return json.loads(found)["explanations"]


def test_a_text_is_explained_at_the_tokens_of_a_rule_with_its_fve(nla):
  rows = call(nla, most=5, text="In Paris it rains.", positions="every:4")
  assert [(row["position"], row["token"]) for row in rows] == [
    *((0, "I"), (4, "a"), (8, " "), (12, "r"), (16, "s")),
  ]
  assert rows[1]["before"] == "In P"
  direct = nla.read("In Paris it rains.", range(0, 17, 4), best_of=1)
  told = [(one.text, one.fve) for one in direct]
  assert any(fve is not None for _, fve in told)
  for row, (text, fve) in zip(rows, told, strict=True):
    assert row["explanation"] == text if text else row["explanation"].startswith("none: ")
    assert row["fve"] == (None if fve is None else pytest.approx(fve, abs=1e-3))


def test_a_message_is_read_by_its_index_and_a_position_counts_in_its_own_words(nla):
  (first,) = call(nla, message=1, positions="0")
  (last,) = call(nla, message=-2, positions="last")
  assert (first["token"], last["token"], first["role"]) == ("T", ".", "assistant")
  assert first["before"].endswith("assistant\n")
  # "river" stands in another message, so in this one there is none of it.
  with pytest.raises(ToolError, match="leaves none"):
    call(nla, message=1, positions="text:river")


def test_a_conversation_may_grow_between_two_calls_and_be_of_any_form(nla):
  growing = [{"role": "user", "content": "One"}]
  tool = read_activations(nla, conversation=lambda: growing)
  assert '"token": "e"' in asyncio.run(tool(message=-1))
  growing.append({"role": "assistant", "content": "Two"})
  assert '"token": "o"' in asyncio.run(tool(message=-1))
  transcript = transcript_of({"messages": growing}, "a", "here")
  assert call(nla, conversation=transcript, message=0)[0]["token"] == "e"


@pytest.mark.parametrize(
  ("arguments", "sentence"),
  [
    ({}, "either a text or the index"),
    ({"text": "a", "message": 0}, "either a text or the index"),
    ({"message": 7}, "the conversation has 3 messages, 0 to 2"),
    ({"text": "hello", "positions": "somewhere"}, "is no choice"),
    ({"text": "hello", "positions": "99"}, "99 is none of them"),
    ({"text": "hello you", "positions": "all"}, "means 9 tokens, and at most 4 .*every:3"),
    ({"text": "a" * 5000}, "5000|tokens"),
  ],
)
def test_a_wrong_call_is_one_sentence(nla, arguments, sentence):
  with pytest.raises(ToolError, match=sentence) as caught:
    call(nla, **arguments)
  assert "\n" not in str(caught.value)


def test_without_a_conversation_or_a_pair_the_agent_is_told_so(nla):
  with pytest.raises(ToolError, match="there is no conversation"):
    call(nla, conversation=None, message=0)
  with pytest.raises(ToolError, match="nowhere"):
    call("nowhere/at-all-av", text="a")


def test_an_agent_of_inspect_uses_the_tool_and_its_mistakes_do_not_end_the_sample(nla, tmp_path):
  script = [
    called("read_activations", message="first"),
    called("read_activations", message=40),
    called("read_activations", message=1, positions="every:8"),
    called("submit", answer="done"),
  ]
  tool = read_activations(nla, conversation=MESSAGES)
  task = Task(dataset=[Sample(input="What does it think?")], solver=react(tools=[tool]))
  log = run(task, scripted(*script), tmp_path)
  assert log.status == "success"
  wrong, outside, right = [one for one in log.samples[0].messages if one.role == "tool"]
  assert "not of type" in wrong.error.message or "not valid" in wrong.error.message
  assert "the conversation has 3 messages" in outside.error.message
  assert [row["token"] for row in json.loads(right.text)["explanations"]] == ["T", "e"]
