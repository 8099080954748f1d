"""An exported pair keeps its prompts' tokens, names every end of an answer, and writes templates for other readers."""

import json

import numpy as np
import pytest
import yaml
from support.tokenizers_of_cases import CHAT, FLAGGED, of_bytes

import nla_jax
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.random_model import random_model
from nla_jax.interop.pairs import sidecar
from nla_jax.interop.pairs.write import write_ar, write_av
from nla_jax.interop.pairs.yaml_reader import template_from_file

K, AV, AR = 1, 'As {"a": 1}: <concept>{injection_char}</concept>', 'The text {{ "{explanation}" }'


@pytest.fixture
def pair(tmp_path):
  """A folder with av/ and ar/ of a tiny random model whose turns end in a token that is no EOS."""
  base, lower, tokenizer = (
    random_model("random:tiny"),
    random_model("random:tiny", K),
    of_bytes(special=FLAGGED),
  )
  live = make_prompts(tokenizer, AV, AR)
  width = base.architecture.vocab_size + 8  # rows of padding, more than tokens

  def widened(found):
    rows = np.zeros((8, 64), np.float32)
    architecture = found.architecture.__class__(**{**vars(found.architecture), "vocab_size": width})
    return architecture, found.params | {
      "embedding": np.concatenate([found.params["embedding"], rows])
    }

  for role, found in (("av", base), ("ar", lower)):
    side = sidecar.ModelSidecar(
      role=role,
      stage="rl",
      base_checkpoint="somebody/model",
      d_model=64,
      injection_scale=1.0,
      mse_scale=8.0,
      tokens=sidecar.tokens_of(live),
      av_template=AV,
      ar_template=AR,
      layer_index=K,
      prompt_ids=live.ids,
    )
    if role == "av":
      write_av(tmp_path / "av", *widened(found), tokenizer, side)
    else:
      write_ar(tmp_path / "ar", *widened(found), np.eye(64, dtype=np.float32), tokenizer, side)
  return tmp_path, tokenizer, live


def test_a_pair_is_read_back_with_its_tokens_and_every_end(pair):
  folder, tokenizer, live = pair
  named = json.loads((folder / "av" / "generation_config.json").read_text())["eos_token_id"]
  assert sorted(named) == sorted(tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"]))
  found = nla_jax.load(folder).pair.prompts
  assert found.ids == live.ids and (found.av_template, found.ar_template) == (AV, AR)


def test_templates_are_written_for_readers_that_use_str_format(pair):
  templates = yaml.safe_load((pair[0] / "av" / "nla_meta.yaml").read_text())["prompt_templates"]
  assert templates["actor"].format(injection_char="㈎") == AV.replace("{injection_char}", "㈎")
  assert templates["critic"].format(explanation="x") == AR.replace("{explanation}", "x")

  # Others may have filled a template in otherwise: it is taken as it stands.
  for text in (
    '{"a": 1} {injection_char}',
    "{ {explanation}",
    "{explanation!r}",
    "{}{explanation}",
  ):
    assert template_from_file(text) == text


def test_a_template_that_was_edited_after_the_export_is_refused_at_its_first_token(pair, tmp_path):
  folder, _, _ = pair
  template = folder / "av" / "chat_template.jinja"
  template.write_text(CHAT.replace("assistant\n", "helper\n"))
  with pytest.raises(
    NLAError, match=r"this AV was trained with another prompt: token .* behind the slot"
  ):
    nla_jax.load(folder)

  # The one that it was trained with may be given.
  (tmp_path / "was.jinja").write_text(CHAT)
  assert nla_jax.load(folder, chat_template=str(tmp_path / "was.jinja")).pair.layer == K


def test_ids_that_are_no_ids_are_refused(pair):
  path = pair[0] / "av" / "nla_meta.yaml"
  meta = yaml.safe_load(path.read_text())
  path.write_text(yaml.safe_dump(meta | {"prompt_ids": {"before": ["a"]}}))
  with pytest.raises(NLAError, match=r"prompt_ids\.before is no list of token ids"):
    nla_jax.load(pair[0])


@pytest.mark.parametrize("key", ["max_new_tokens", "baseline_variance", "ar_lines"])
@pytest.mark.parametrize("value", [-4, 10**9, "150", True, [1], float("nan"), 0])
def test_numbers_of_a_training_that_are_none_are_refused(pair, key, value):
  path = pair[0] / "av" / "nla_meta.yaml"
  meta = yaml.safe_load(path.read_text())
  path.write_text(yaml.safe_dump(meta | {"training": {key: value}}))
  with pytest.raises(NLAError, match=rf"the sidecar says training\.{key}: .*, expected"):
    nla_jax.load(pair[0])
