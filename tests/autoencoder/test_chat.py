"""Chat templates are not trusted: each either serves, or is refused in one line with its own words."""

import datetime

import pytest
import transformers.utils.chat_template_utils as library
from support.tokenizers_of_cases import ASK, AV, CHAT, FLAGGED, of_bytes, with_blank_first

from nla_jax.autoencoder.chat import render, template_hash, with_chat_template, written
from nla_jax.autoencoder.prompts import check_kept, make_prompts
from nla_jax.autoencoder.tokens import special_tokens
from nla_jax.autoencoder.turns import close_of_turn, opening
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.record import hash_tokenizer

TURN = "<|im_start|>{{ m.role }}\n%s<|im_end|>\n"
LOOP = "{%% for m in messages %%}%s{%% endfor %%}"


def turns(content: str, before: str = "") -> str:
  """A template that writes each turn's content so."""
  return before + (LOOP % (TURN % content)).replace("%%", "%") + ASK


def end(tokenizer, close) -> str:
  return tokenizer.decode(list(close))


@pytest.mark.parametrize(
  ("special", "added", "ends", "expected"),
  [
    (FLAGGED, ("㈎",), (), "<|im_end|>"),  # special, and under no name of the config
    (FLAGGED[:2], ("㈎", "<|im_end|>"), (), "<|im_end|>"),  # a fine-tune's, without the flag
    (FLAGGED[:1], ("㈎",), (), "<|im_end|>\n<|endoftext|>"),  # words
  ],
)
def test_a_turn_ends_with_the_token_that_the_template_writes(special, added, ends, expected):
  tokenizer = of_bytes(special=special, added=added)
  prompts = make_prompts(tokenizer, AV, ends=ends)
  assert end(tokenizer, prompts.close) == expected
  assert set(prompts.stop_ids) == {prompts.close[-1], tokenizer.eos_token_id}
  assert prompts.stop_ids[-1] == prompts.stop_id


def test_an_eos_of_the_files_ends_a_turn_though_it_is_a_plain_token():
  chat = turns("{{ m.content }}").replace("<|im_end|>", "~")
  tokenizer = of_bytes(chat, special=FLAGGED[:2])
  (plain,) = tokenizer("~", add_special_tokens=False)["input_ids"]
  prompts = make_prompts(tokenizer, AV, ends=(plain,))
  assert prompts.close == (plain,) and plain in prompts.stop_ids


def test_an_added_token_ends_a_turn_only_where_nothing_flagged_does():
  chat = turns("{{ m.content }}</think>")
  tokenizer = of_bytes(chat, added=("㈎", "</think>"))
  assert end(tokenizer, close_of_turn(tokenizer)) == "</think><|im_end|>"


@pytest.mark.parametrize(
  "content",
  [
    "{{ m.content }}",
    "{{ m.content | trim | lower }}",
    "{{ m.content | upper }}",
    "{{ m.content | replace('\x00', '') }}",
    "{{ m.content[0].text }}",
    "{% for part in m.content %}{{ part.text }}{% endfor %}",
    "{% if m.role == 'user' %}{{ m.content[0].text }}{% else %}{{ m.content }}{% endif %}",
    "{% if m.role == 'user' %}{{ m.content }}{% else %}{{ m.content[0].text }}{% endif %}",
    "{{ m.content.split('</think>')[-1].lstrip('\n') }}",
  ],
)
def test_a_template_that_alters_harmlessly_serves(content):
  tokenizer = of_bytes(turns(content))
  prompts = make_prompts(tokenizer, AV)
  assert end(tokenizer, prompts.close) == "<|im_end|>"
  assert tokenizer.decode(prompts.before).lower().endswith("explain <concept>")


RAISES = "{{ raise_exception('%s') }}"
NEEDS_SYSTEM = "{% if messages[0].role != 'system' %}" + RAISES % "a system first" + "{% endif %}"
ONLY_USERS = "{% if m.role != 'user' %}" + RAISES % "only users" + "{% endif %}{{ m.content }}"


@pytest.mark.parametrize(
  ("chat", "words"),
  [
    (turns("{{ m.content }}", NEEDS_SYSTEM), "refuses what it is given: a system first"),
    (turns(ONLY_USERS), "refuses what it is given: only users"),
    ("{% for m in messages %}", "refuses what it is given: Unexpected end of template"),
    (turns("{{ m.content + 1 }}"), "refuses what it is given: "),
    (turns("{{ m.content.no.such }}"), "refuses what it is given: 'str object' has no attribute"),
    (turns(""), "drops or changes the words that it is given of the user"),
    (turns("{{ m.content[:9] }}"), "drops or changes the words that it is given of the user"),
    (turns("{{ m.content | e }}"), "drops or changes the words that it is given of the user"),
    (turns("{{ m.content if m.role == 'user' }}"), "drops or changes .* of the assistant"),
    (turns("{{ m.content }}{{ m.content }}"), "must occur once inside the AV's prompt"),
    ({"tool_use": CHAT, "rag": CHAT}, "none that is called default .*: tool_use, rag"),
    ({}, "none that is called default .*: nothing"),
    ({"default": 5}, "is 5, which is no text"),
    (5, "is 5, which is no text"),
    (None, "has no chat template"),
  ],
)
def test_a_template_that_cannot_serve_is_one_line_with_its_own_words(chat, words):
  tokenizer = of_bytes()
  tokenizer.chat_template = chat
  with pytest.raises(NLAError, match=words) as caught:
    make_prompts(tokenizer, AV)
  assert "\n" not in str(caught.value)


def test_special_strings_in_messages_stay_words_under_a_template_that_removes_control_characters():
  for content in ("{{ m.content | replace('\x00', '') }}", "{{ m.content | upper }}"):
    tokenizer = of_bytes(turns(content))
    ids = render(tokenizer, [{"role": "user", "content": "a <|im_end|> b 8201746395"}])
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1
    assert "<|im_end|> b 8201746395" in tokenizer.decode(ids).replace("IM_END", "im_end").lower()


def test_a_conversation_whose_user_or_assistant_is_left_out_is_refused():
  talk = [{"role": "user", "content": "what is snow"}, {"role": "assistant", "content": "ice"}]
  for role in ("user", "assistant"):
    tokenizer = of_bytes(turns(f"{{{{ m.content if m.role != '{role}' }}}}"))
    with pytest.raises(NLAError, match=f"of the {role}"):
      render(tokenizer, talk)

  # What an assistant thought may go.
  tokenizer = of_bytes(turns("{{ m.content.split('</think>')[-1] }}"))
  talk[1]["content"] = "<think>hm</think>It is frozen water."
  assert "hm" not in written(tokenizer, talk)


DATED = "{{ 'Today ' + strftime_now('%d %b %Y') + ' ' }}" + CHAT


@pytest.mark.parametrize(
  "chat",
  [
    DATED,
    "{% if strftime_now is defined %}{{ strftime_now('%-d.%m.%y %H:%M') }}{% endif %}" + CHAT,
  ],
)
def test_the_date_that_a_template_sees_is_the_same_on_every_day(chat, monkeypatch):
  seen = []
  for day in (6, 7):
    moved = type(
      "Moved",
      (datetime.datetime,),
      {"now": lambda tz=None, day=day: datetime.datetime(2031, 1, day)},
    )
    monkeypatch.setattr(library, "datetime", moved)
    seen.append(make_prompts(of_bytes(chat), AV).ids)
  assert seen[0] == seen[1]
  assert "26" in of_bytes().decode(seen[0]["before"])


def test_a_template_that_draws_draws_the_same():
  chat = "{{ [" + ",".join(f"'{i}'" for i in range(1000, 2000)) + "] | random }}" + CHAT
  seen = {written(of_bytes(chat), [{"role": "user", "content": "a"}]) for _ in range(4)}
  assert len(seen) == 1


def test_another_template_is_taken_from_a_file_or_by_its_name(tmp_path):
  tokenizer, file = (
    of_bytes({"default": CHAT, "short": turns("{{ m.content }}", "!")}),
    tmp_path / "one.jinja",
  )
  file.write_text(turns("{{ m.content }}", "?"))
  asked = [{"role": "user", "content": "a"}]
  found = [
    written(with_chat_template(tokenizer, one), asked)[0] for one in ("", "short", str(file))
  ]
  assert found == ["<", "!", "?"]
  for name in ("absent", str(tmp_path)):
    with pytest.raises(
      NLAError,
      match=r"no file .* nor one of the tokenizer's own \(default, short\)",
    ):
      with_chat_template(tokenizer, name)
  assert template_hash(with_chat_template(tokenizer, "short")) != template_hash(tokenizer)


def test_named_templates_are_part_of_a_tokenizer_s_hash():
  one, other = (of_bytes({"default": CHAT, "rag": text}) for text in ("a", "b"))
  assert hash_tokenizer(one) != hash_tokenizer(other)
  assert hash_tokenizer(of_bytes(5)) != hash_tokenizer(of_bytes(6))


def test_another_prompt_than_the_kept_one_is_named_at_its_first_token():
  tokenizer = of_bytes()
  kept = make_prompts(tokenizer, AV).ids
  check_kept(kept, make_prompts(tokenizer, AV), tokenizer, "the AV")
  for chat, words in (
    (turns("{{ m.content }}", "Hi "), "token 0 of the AV's prompt begins '<|im_start|>"),
    (CHAT.replace("assistant\n", "helper\n"), "token 11 of the AV's prompt behind the slot"),
    (CHAT.replace("<|im_end|>", " <|im_end|>"), "token 11 of the AV's prompt behind the slot"),
  ):
    changed = of_bytes(chat)
    with pytest.raises(NLAError, match="the AV was trained with another prompt: token") as caught:
      check_kept(kept, make_prompts(changed, AV), changed, "the AV")
    assert words.split(" begins")[0].split(" of")[1] in str(caught.value), words


def test_a_tokenizer_that_puts_a_blank_first_has_its_marker_inside_the_prompt():
  tokenizer = with_blank_first()
  assert len(tokenizer("㈎", add_special_tokens=False)["input_ids"]) == 2
  for marker in (None, "㈎"):
    prompts = make_prompts(tokenizer, AV, marker=marker)
    assert tokenizer.decode([prompts.left_id, prompts.marker_id, prompts.right_id]) == ">㈎<"
  for text in ("x", "two words", " "):
    ids = [*prompts.ar_before, *prompts.ar_ids(tokenizer, text)]
    assert tuple(ids[-len(prompts.ar_suffix) :]) == prompts.ar_suffix

  # The blank is none of the close's: it is not there behind an answer.
  assert end(tokenizer, prompts.close) == "<|im_end|>"
  spaced = with_blank_first()
  spaced.chat_template = turns("{{ m.content }}\n")
  assert spaced.convert_ids_to_tokens(close_of_turn(spaced)) == ["\n", "<|im_end|>"]


@pytest.mark.parametrize("marker", ["雪", "㈏"])
def test_a_character_that_the_tokenizer_does_not_know_is_no_marker(marker):
  with pytest.raises(NLAError, match=f"does not know the marker '{marker}'"):
    make_prompts(with_blank_first(), AV, marker=marker)
  assert make_prompts(with_blank_first("㈏"), AV).marker == "㈏"


def test_opening_and_special_tokens_are_those_of_the_template():
  tokenizer = of_bytes(turns("{{ m.content[0].text }}", "Hello."))
  assert tokenizer.decode(opening(tokenizer)) == "Hello.<|im_start|>user\n"
  assert set(special_tokens(tokenizer).values()) == set(FLAGGED)
