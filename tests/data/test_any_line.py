"""Any line of people's JSON lines, given to each of their readers: rows, or one line of error; nothing else."""

import json

import pytest
from support.tokenizers_of_cases import of_bytes

from nla_jax.autoencoder.chat import render
from nla_jax.conversation.messages import messages_of
from nla_jax.data.corpora.read import read_corpus
from nla_jax.data.teachers.file import read_teacher_file
from nla_jax.errors import NLAError

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

TOKENIZER = of_bytes()

# Keys and words that the readers know, so that what is drawn gets past their first question.
NAMES = ("text", "messages", "id", "group", "doc_id", "position", "n_raw_tokens", "explanation")
ROLES = ("user", "assistant", "human", "function_call", "\ud83d")
KINDS = ("text", "thinking", "tool_use", "tool_result", "image")
LEAVES = st.sampled_from(
  [None, True, 0, 3, -1, 2**70, 10**400, float("nan"), float("inf"), 0.5, "", " ", "a\nb", "\ud83d", "\x00", "{}", "[["]
)  # fmt: skip
SMALL = st.one_of(LEAVES, st.lists(LEAVES, max_size=2), st.dictionaries(LEAVES.map(str), LEAVES))
CALLS = st.fixed_dictionaries(
  {"name": st.sampled_from(["add", 3])},
  optional={"arguments": SMALL, "function": SMALL, "id": SMALL},
)
WORDS = st.one_of(st.just("a"), SMALL)
PARTS = st.one_of(
  st.fixed_dictionaries({"type": st.just("tool_use"), "name": st.just("add"), "input": SMALL}),
  st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS), "text": WORDS}, optional={"content": SMALL}
  ),
  st.fixed_dictionaries({"type": SMALL, "text": WORDS}),
)
CHAT = st.fixed_dictionaries(
  {"role": st.sampled_from(ROLES), "content": st.one_of(WORDS, st.lists(PARTS, max_size=2))},
  optional={
    "tool_calls": st.one_of(SMALL, st.lists(CALLS, max_size=2)),
    "reasoning_content": SMALL,
  },
)
CALL_IN_WORDS = '{"name": "add", "arguments": 3}'
SHAREGPT = st.fixed_dictionaries(
  {"from": st.sampled_from(ROLES), "value": st.one_of(WORDS, st.just(CALL_IN_WORDS))}
)
CONVERSATIONS = st.one_of(
  SMALL,
  st.lists(st.one_of(CHAT, SHAREGPT, SMALL), max_size=2),
  st.lists(CHAT, min_size=1, max_size=1),
)
ROWS = st.one_of(
  SMALL,
  st.fixed_dictionaries({"text": SMALL}, optional={"id": SMALL, "group": SMALL}),
  st.fixed_dictionaries({"messages": CONVERSATIONS}, optional={"id": SMALL, "group": SMALL}),
  st.fixed_dictionaries(
    {"doc_id": SMALL, "explanation": SMALL}, optional={"position": SMALL, "n_raw_tokens": SMALL}
  ),
)

# Deeper than Python goes down when it writes a value, and still read by its parser.
DEEP = "[" * 900 + "]" * 900
DEEP_ROWS = st.sampled_from(NAMES).map(
  lambda name: (
    f'{{"text": "a", "position": 3, "explanation": "a", "doc_id": "d", "{name}": {DEEP}}}'
  )
)
LINES = st.one_of(st.builds(json.dumps, ROWS), DEEP_ROWS, st.text('a{}[]":,\\u0', max_size=12))
fast = hypothesis.settings(max_examples=200, deadline=None, database=None)


def one_line(error: NLAError) -> bool:
  return "\n" not in str(error) and len(str(error)) < 1_000


@fast
@hypothesis.given(LINES)
def test_any_line_is_a_document_or_one_line_of_error(tmp_path_factory, line):
  path = tmp_path_factory.getbasetemp() / "corpus.jsonl"
  path.write_text(line + "\n", encoding="utf-8")
  try:
    for document in read_corpus(str(path)):
      # What is read can be written, as the store writes it.
      words = [one["content"] for one in document.messages]
      assert "".join([document.id, document.group, document.text, *words]).encode()
  except NLAError as error:
    assert one_line(error)


@fast
@hypothesis.given(LINES)
def test_any_line_is_an_explanation_or_one_line_of_error(tmp_path_factory, line):
  path = tmp_path_factory.getbasetemp() / "teacher.jsonl"
  path.write_text(line + "\n", encoding="utf-8")
  try:
    for (name, position), text in read_teacher_file(str(path)).items():
      assert (name + text).encode() and isinstance(position, int)
  except NLAError as error:
    assert one_line(error)


@fast
@hypothesis.given(st.one_of(CONVERSATIONS, ROWS))
def test_any_value_is_a_conversation_or_one_line_of_error(value):
  try:
    messages = messages_of(value)
    assert messages and all(isinstance(one["content"], str) for one in messages)
    assert render(TOKENIZER, messages)
  except NLAError as error:
    assert one_line(error)


def test_answers_within_answers_do_not_nest_without_end():
  part = {"type": "text", "text": "a"}
  for _ in range(900):
    part = {"type": "tool_result", "content": [part]}
  with pytest.raises(NLAError, match="a tool's answer with a part of type 'tool_result'"):
    messages_of([{"role": "user", "content": [part]}])
