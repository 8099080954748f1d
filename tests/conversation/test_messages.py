"""Every shape of a conversation becomes one form, or one sentence says where it is none."""

import pytest

from nla_jax.conversation.messages import is_conversation, messages_of
from nla_jax.errors import NLAError

PLAIN = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


@pytest.mark.parametrize(
  "value",
  [
    PLAIN,
    {"messages": PLAIN, "id": "7"},
    {"messages": None, "conversation": [{**one, "toxic": False} for one in PLAIN]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
    [
      {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
      {"role": "model", "content": ["Hello", "."]},
    ],
  ],
)
def test_shapes_of_one_conversation_are_one_form(value):
  assert messages_of(value) == PLAIN and is_conversation(value)


def test_openai_tool_calls_have_their_arguments_as_an_object():
  function = {"name": "add", "arguments": '{"a": 1}'}
  calling = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "function": function}],
  }
  answer = {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"}
  expected = {"role": "assistant", "content": "", "tool_calls": [CALL | {"id": "c1"}]}
  assert messages_of([calling, answer]) == [expected, answer]
  # What a model wrote that is no JSON is kept as it is.
  function["arguments"] = "{oops"
  (call,) = messages_of([calling])[0]["tool_calls"]
  assert call["function"]["arguments"] == {"arguments": "{oops"}


def test_anthropic_parts_are_taken_apart():
  words = {"type": "text", "text": "One moment."}
  thought = {"type": "thinking", "thinking": "Let me add."}
  use = {"type": "tool_use", "id": "t", "name": "add", "input": {"a": 1}}
  result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "2"}]}
  given = [
    {"role": "assistant", "content": [thought, words, use]},
    {"role": "user", "content": [result, {"type": "text", "text": "So?"}]},
    {"role": "user", "content": [{"type": "tool_result", "content": "3"}]},
  ]
  said, *rest = messages_of(given)
  assert said.pop("tool_calls") == [CALL]
  assert said == {
    "role": "assistant",
    "content": "One moment.",
    "reasoning_content": "Let me add.",
  }
  assert rest == [
    {"role": "tool", "content": "2", "tool_call_id": "t"},
    {"role": "user", "content": "So?"},
    {"role": "tool", "content": "3"},
  ]


def test_sharegpt_calls_and_observations_are_a_tools():
  given = [
    {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
    {"from": "observation", "value": "2"},
    {"from": "function_call", "value": "add 1"},
  ]
  assert messages_of(given) == [
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "2"},
    {"role": "assistant", "content": "add 1"},
  ]


@pytest.mark.parametrize(
  ("value", "said"),
  [
    ([], "the conversation is an empty list"),
    ("Hi", "the conversation is a str"),
    (None, "the conversation is missing"),
    ({"text": "Hi"}, "the conversation has 'text'"),
    ({}, "has no keys"),
    ({"messages": "Hi"}, "has under 'messages' a str"),
    ([7], "message 1 of the conversation is a int"),
    ([*PLAIN, {"content": "x"}], "message 3 of the conversation: 'role' is missing"),
    ([{"role": "user"}], "message 1 of the conversation has no content"),
    ([{"role": "user", "content": 7}], "'content' is a int"),
    ([{"role": "user", "content": [{"type": "image_url"}]}], "part of type 'image_url'"),
    ([{"role": "user", "content": [{"type": "text"}]}], "a part whose 'text' is missing"),
    ([{"role": "assistant", "tool_calls": [{}]}], "a tool call without the name"),
    ([{"from": "human"}], "'value' missing"),
    ([{"role": "assistant", "content": "x", "reasoning": ["a"]}], "its reasoning is a list"),
  ],
)
def test_what_is_no_conversation_is_said_in_one_sentence(value, said):
  with pytest.raises(NLAError) as caught:
    messages_of(value)
  assert said in str(caught.value) and "\n" not in str(caught.value)
  with pytest.raises(NLAError, match="line 7"):
    messages_of(value, "line 7")


def test_texts_and_token_ids_are_no_conversations():
  assert not any(map(is_conversation, ("Hi", [1, 2], [], ["Hi"], {"text": "Hi"}, None, 7)))
