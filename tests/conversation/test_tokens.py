"""Each token knows its words, its role, its message and its section; positions are chosen by them."""

import itertools

import numpy as np
import pytest

from nla_jax.conversation.positions import choose
from nla_jax.conversation.tokens import (
  CONTENT,
  FOOTER,
  HEADER,
  SCAFFOLD,
  Piece,
  spans_of,
  tokens_of_pieces,
)
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.load import load_pretrained

TEMPLATE = (
  "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}"
  "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = [
  {"role": "system", "content": "Be kind."},
  {"role": "user", "content": "user\n"},  # what the template writes, too
  {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add"}}]},
  {"role": "tool", "content": "2"},
  {"role": "assistant", "content": " Two. "},
]


@pytest.fixture(scope="module")
def tokenizer():
  return load_pretrained("random:tiny", weights=False).tokenizer


def tokens(tokenizer, messages, template=TEMPLATE, reply=False):
  def write(some):
    return tokenizer.apply_chat_template(
      list(some), tokenize=False, add_generation_prompt=reply, chat_template=template
    )

  text = write(messages)
  spans = spans_of(text, messages, write, tokenizer.all_special_tokens)
  roles = [one["role"] for one in messages]
  return tokens_of_pieces(tokenizer, [Piece(text)], spans, roles)


def parts(found) -> list[tuple]:
  """(role, message, section, characters) of each run of tokens that have these in common."""
  keys = list(zip(found.roles, found.messages, found.sections))
  runs = itertools.groupby(range(len(found)), key=lambda i: keys[i])
  return [(*key, "".join(map(found.word, indices))) for key, indices in runs]


def test_every_character_is_somebodys(tokenizer):
  found = parts(tokens(tokenizer, CHAT, reply=True))
  assert "".join(one[3] for one in found) == tokens(tokenizer, CHAT, reply=True).text
  assert [one for one in found if one[2] == CONTENT] == [
    ("system", 0, CONTENT, "Be kind."),
    ("user", 1, CONTENT, "user"),
    ("assistant", 2, CONTENT, "<call>add</call>"),
    ("tool", 3, CONTENT, "2"),
    ("assistant", 4, CONTENT, "Two."),
  ]
  assert ("user", 1, HEADER, "<|im_start|>user\n") in found
  assert [one[3] for one in found if one[2] == FOOTER] == ["<|im_end|>\n"] * 5
  assert found[-1] == (None, None, SCAFFOLD, "<|im_start|>assistant\n")


@pytest.mark.parametrize(
  "template",
  [
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    "{% for m in messages %}[{{ m.content | upper }}]{% endfor %}",
    "{% for m in messages %}{{ m.content }}{% endfor %}",
  ],
)
def test_templates_without_special_tokens_are_read_too(tokenizer, template):
  messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
  found = parts(tokens(tokenizer, messages, template))
  said = [(one[0], one[1], one[3].lower()) for one in found if one[2] == CONTENT]
  assert said == [("user", 0, "one"), ("assistant", 1, "two")]


@pytest.mark.parametrize(
  "template",
  [
    "{{ messages | length }}",
    "{% for m in messages %}{{ m.content | length }}|{% endfor %}",
    "{% for m in messages %}{% if m.content == 'two' %}x{% else %}y{% endif %}{{ m.content }}{% endfor %}",
  ],
)
def test_a_template_that_cannot_be_followed_leaves_tokens_of_no_message(tokenizer, template):
  messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
  found = tokens(tokenizer, messages, template)
  assert set(found.sections) == {SCAFFOLD} and set(found.roles) == {None}


def test_characters_of_several_tokens_are_fragments_of_one(tokenizer):
  found = tokens_of_pieces(tokenizer, [Piece("a🙂é")], [], [])
  assert "".join(dict.fromkeys(map(found.word, range(len(found))))) == "a🙂é"
  emoji = [i for i in range(len(found)) if found.word(i) == "🙂"]
  assert len(emoji) > 1
  assert [found.fragments[i] for i in emoji] == [(k, len(emoji)) for k in range(len(emoji))]
  assert found.fragments[0] == (0, 1)


def test_what_a_document_quotes_is_words(tokenizer):
  special = tokenizer.eos_token
  plain = tokens_of_pieces(tokenizer, [Piece(special, literal=True)], [], [])
  assert tokenizer.eos_token_id not in plain.ids and len(plain) > 1
  assert tokens_of_pieces(tokenizer, [Piece(special)], [], []).ids == [tokenizer.eos_token_id]


@pytest.fixture(scope="module")
def chat(tokenizer):
  return tokens(tokenizer, CHAT)


def words(chat, positions, **options) -> str:
  return "".join(chat.word(i) for i in choose(chat, positions, **options))


def test_positions_by_role_words_and_place(chat):
  assert words(chat, "assistant") == "<call>add</call>Two."
  assert words(chat, "system & last") == "."
  assert words(chat, "text:kind") == "kind" and words(chat, "end:kind") == "d"
  assert words(chat, "user & text:user") == words(chat, "user") == "user"
  assert words(chat, "all") == chat.text
  assert words(chat, None) == words(chat, "words") == "Be kind.user<call>add</call>2Two."
  assert choose(chat, "last") == [len(chat) - 1] == choose(chat, -1) == choose(chat, np.int64(-1))
  assert choose(chat, [3, -1, 0]) == [3, len(chat) - 1, 0]
  assert choose(chat, "0,-1") == [0, len(chat) - 1]
  every = choose(chat, "all & every:7")
  assert every == [*range(0, len(chat), 7)]


def test_random_positions_are_the_seeds(chat):
  once, again, other = (choose(chat, "words & random:5", seed=seed) for seed in (1, 1, 2))
  assert once == again == sorted(once) and len(set(once)) == 5 and once != other
  assert set(once) <= set(choose(chat, "words"))
  assert choose(chat, "user & random:99") == choose(chat, "user")


@pytest.mark.parametrize(
  ("positions", "said"),
  [
    (99999, "tokens, and 99999 is none of them"),
    ([0, -99999], "and -99999 is none of them"),
    ([], "positions are empty"),
    ([1.5], "1.5 is no index of a token"),
    ([True], "True is no index"),
    (["last"], "'last' is no index"),
    (1.5, "expected indices of tokens"),
    ({}, "expected indices of tokens"),
    ("frist", "'frist' is no choice"),
    ("every:0", "'every:0' is no choice"),
    ("text:", "'text:' is no choice"),
    ("", "positions are empty"),
    ("text:nowhere", "leaves none of the"),
    ("developer", "leaves none of the"),
    ("5,99999", "and 99999 is none of them"),
  ],
)
def test_a_choice_that_means_nothing_is_one_sentence(chat, positions, said):
  with pytest.raises(NLAError) as caught:
    choose(chat, positions)
  assert said in str(caught.value) and "\n" not in str(caught.value)
