"""Sidecars in our form, in the spelling of the released checkpoints, and broken ones."""

import dataclasses
import math
import re

import pytest
import yaml

from nla_jax.autoencoder import prompts
from nla_jax.errors import NLAError
from nla_jax.interop.pairs import sidecar as s
from nla_jax.interop.reference_data.sidecar import (
  DatasetSidecar,
  dataset_sidecar_path,
  read_dataset_sidecar,
  write_dataset_sidecar,
)

# As a released checkpoint spells it, with a key of its own.
RELEASED = """
kind: nla_model
schema_version: 2
role: av
stage: rl
d_model: 3584
extraction_layer_index: 20
extraction: {injection_scale: 150.0, mse_scale: 59.8665}
tokens:
  injection_char: ㈎
  injection_token_id: 149705
  injection_left_neighbor_id: 29
  injection_right_neighbor_id: 522
  critic_suffix_ids: [1318, 29, 366, 1708, 29]
prompt_templates: {av: 'What is <concept>{injection_char}</concept>?', ar: 'Text: {explanation} <summary>'}
release: {license: mit}
"""


def _sidecar(tokenizer, role="av", **changes):
  live = prompts.make_prompts(tokenizer)
  base = s.ModelSidecar(
    role=role,
    stage="rl",
    base_checkpoint="somebody/model",
    d_model=32,
    injection_scale=12.5,
    mse_scale=math.sqrt(32),
    tokens=s.tokens_of(live),
    av_template=live.av_template,
    ar_template=live.ar_template,
    layer_index=1,
    trained_on=("wikipedia-sample",),
    training={"steps": 3, "learning_rate": 1e-5},
  )
  return dataclasses.replace(base, **changes)


@pytest.mark.parametrize("role", ["av", "ar"])
def test_what_is_written_is_read_back(tokenizer, tmp_path, role):
  written = _sidecar(tokenizer, role)
  s.write_model_sidecar(tmp_path, written)
  assert s.read_model_sidecar(tmp_path) == written
  s.read_model_sidecar(tmp_path).verify(tokenizer)


def test_the_written_form_is_the_documented_one(tokenizer, tmp_path):
  ar = yaml.safe_load(
    s.write_model_sidecar(tmp_path, _sidecar(tokenizer, "ar")).read_text(encoding="utf-8")
  )
  assert (ar["kind"], ar["schema_version"], ar["role"], ar["stage"]) == (
    "nla_model",
    2,
    "critic",
    "rl",
  )
  assert ar["critic"] == {"extraction_layer_index": 1}
  assert set(ar["extraction"]) == {"injection_scale", "mse_scale"}
  assert all(isinstance(scale, float) for scale in ar["extraction"].values())
  assert set(ar["prompt_templates"]) == {"actor", "critic"}
  assert set(ar["tokens"]) == {
    "injection_char",
    "injection_token_id",
    "injection_left_neighbor_id",
    "injection_right_neighbor_id",
    "critic_suffix_ids",
  }
  av = yaml.safe_load(
    s.write_model_sidecar(tmp_path, _sidecar(tokenizer)).read_text(encoding="utf-8")
  )
  assert av["role"] == "actor" and "critic" not in av
  assert av["prompt_templates"]["actor"] == prompts.AV_TEMPLATE


def test_released_spelling_and_unknown_keys_are_read(tmp_path):
  path = tmp_path / s.MODEL_FILE
  path.write_text(RELEASED, encoding="utf-8")
  av = s.read_model_sidecar(tmp_path)
  assert (av.role, av.layer_index, av.injection_scale, av.d_model) == ("av", 20, 150.0, 3584)
  assert av.tokens.suffix_ids == (1318, 29, 366, 1708, 29)
  path.write_text(
    RELEASED.replace("role: av", "role: ar").replace(
      "injection_scale: 150.0", "injection_scale: null"
    ),
    encoding="utf-8",
  )
  ar = s.read_model_sidecar(tmp_path)
  assert (ar.role, ar.injection_scale, ar.mse_scale, ar.layer_index) == ("ar", None, 59.8665, 20)
  path.write_text(RELEASED.replace("59.8665", "sqrt_d_model"), encoding="utf-8")
  assert s.read_model_sidecar(tmp_path).mse_scale == math.sqrt(3584)


@pytest.mark.parametrize(
  ("line", "layer"),
  [
    ("extraction_layer_index: 20", 20),
    ("critic: {extraction_layer_index: 20}", 20),
    ("critic: {num_hidden_layers: 20}", 20),  # the first schema's name for K
    ("extraction_layer_index: 20\ncritic: {num_hidden_layers: 20}", 20),
    ("extraction_layer_index: 20\ncritic: {num_hidden_layers: 21}", 20),
    ("extraction_layer_index: 20\ncritic: {num_hidden_layers: 19}", None),
    ("extraction_layer_index: 20\ncritic: {extraction_layer_index: 21}", None),
  ],
)
def test_the_layer_is_read_in_each_spelling_and_a_contradiction_refused(tmp_path, line, layer):
  text = RELEASED.replace("role: av", "role: ar").replace("extraction_layer_index: 20", line)
  (tmp_path / s.MODEL_FILE).write_text(text, encoding="utf-8")
  if layer is None:
    with pytest.raises(NLAError, match="contradicts itself"):
      s.read_model_sidecar(tmp_path)
  else:
    assert s.read_model_sidecar(tmp_path).layer_index == layer


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    (
      "extraction: {",
      "extraction: {norm: l2, ",
      "sets extraction.norm to 'l2', activations that are not the raw ones",
    ),
    (
      "role: av",
      "role: av\nactor_reasoning_mode: forced_final",
      "sets actor_reasoning_mode to 'forced_final'",
    ),
    ("{av: 'What", "{actor: 'Which', av: 'What", "contradicts itself: prompt_templates.av is"),
    ("kind: nla_model", "kind: nla_dataset", "expected nla_model"),
    ("role: av", "role: judge", "role 'judge'"),
    ("injection_scale: 150.0", "injection_scale: null", "lacks extraction.injection_scale"),
    ("injection_scale: 150.0", "injection_scale: -1", "expected a positive number"),
    ("injection_scale: 150.0", "injection_scale: raw", "expected a positive number"),
    ("  injection_left_neighbor_id: 29\n", "", "lacks tokens.injection_left_neighbor_id"),
    ("d_model: 3584", "d_model: wide", "d_model is 'wide'"),
    ("av: 'What", "judge: 'What", "lacks prompt_templates.av or prompt_templates.actor"),
    ("role: av\n", "role: ar\nextraction_layer_index_: 20\n", None),
    ("kind: nla_model", "kind: [", "cannot be read as YAML"),
  ],
)
def test_what_is_missing_is_named_and_never_guessed(tmp_path, old, new, message):
  text = RELEASED.replace(old, new)
  if message is None:
    text, message = (
      text.replace("\nextraction_layer_index: 20", ""),
      "lacks critic.extraction_layer_index",
    )
  (tmp_path / s.MODEL_FILE).write_text(text, encoding="utf-8")
  with pytest.raises(NLAError, match=re.escape(message)) as error:
    s.read_model_sidecar(tmp_path)
  assert "\n" not in str(error.value)


def test_a_directory_without_a_sidecar_says_so(tmp_path):
  with pytest.raises(NLAError, match="no sidecar at"):
    s.read_model_sidecar(tmp_path)


@pytest.mark.parametrize("field", ["injection_token_id", "left_id", "right_id", "suffix_ids"])
def test_ids_that_the_live_tokenizer_does_not_give_are_refused(tokenizer, field):
  good = _sidecar(tokenizer)
  good.verify(tokenizer)
  wrong = (1, 2) if field == "suffix_ids" else 7
  with pytest.raises(NLAError, match="is not the one it was trained with"):
    dataclasses.replace(good, tokens=dataclasses.replace(good.tokens, **{field: wrong})).verify(
      tokenizer
    )


def test_a_scale_that_is_no_number_is_not_written(tokenizer, tmp_path):
  with pytest.raises(NLAError, match="needs injection_scale"):
    s.write_model_sidecar(tmp_path, _sidecar(tokenizer, injection_scale=None))
  assert not list(tmp_path.iterdir())


def test_dataset_sidecars_round_trip_with_the_documented_keys_only(tokenizer, tmp_path):
  tokens = s.tokens_of(prompts.make_prompts(tokenizer))
  sidecar = DatasetSidecar(
    dataset_id="d",
    stage="ar_sft",
    row_count=7,
    base_model="somebody/model",
    d_model=32,
    layer_index=1,
    corpus="wikipedia-sample",
    corpus_length=100,
    positions_per_doc=10,
    tokens=tokens,
    av_template=prompts.AV_TEMPLATE,
    ar_template=prompts.AR_TEMPLATE,
    api_summaries={"model": "m", "max_tokens": 10, "temperature": 1.0, "instruction_prompt": "p"},
  )
  path = write_dataset_sidecar(tmp_path / "x.parquet", sidecar)
  assert path.name == "x.parquet.nla_meta.yaml"
  assert read_dataset_sidecar(tmp_path / "x.parquet") == sidecar
  data = yaml.safe_load(path.read_text(encoding="utf-8"))
  assert set(data["extraction"]) == {
    "base_model",
    "d_model",
    "layer_index",
    "norm",
    "corpus",
    "corpus_slice",
    "positions_per_doc",
  }
  assert data["extraction"]["norm"] == "none" and data["extraction"]["corpus_slice"] == {
    "start": 0,
    "length": 100,
  }
  write_dataset_sidecar(tmp_path / "x.parquet", dataclasses.replace(sidecar, stage="rl"))
  assert read_dataset_sidecar(tmp_path / "x.parquet").tokens.suffix_ids is None


def test_normalised_activations_and_foreign_keys_are_refused(tmp_path):
  sidecar = DatasetSidecar(
    dataset_id="d", stage="base", row_count=1, base_model="m", d_model=4, layer_index=0, corpus="c"
  )
  write_dataset_sidecar(tmp_path / "x.parquet", sidecar)
  assert read_dataset_sidecar(tmp_path / "x.parquet") == sidecar
  path = dataset_sidecar_path(tmp_path / "x.parquet")
  path.write_text(path.read_text().replace("norm: none", "norm: l2"))
  with pytest.raises(NLAError, match="raw ones are needed"):
    read_dataset_sidecar(tmp_path / "x.parquet")
  with pytest.raises(NLAError, match="may hold only"):
    write_dataset_sidecar(
      tmp_path / "y.parquet", dataclasses.replace(sidecar, api_summaries={"provider": "x"})
    )


@pytest.mark.parametrize("said", ["3", "0", "two", "true", "[2]"])
def test_a_schema_that_is_not_known_is_refused(tmp_path, said):
  (tmp_path / s.MODEL_FILE).write_text(
    RELEASED.replace("schema_version: 2", f"schema_version: {said}")
  )
  with pytest.raises(NLAError, match="versions 1 and 2 are read"):
    s.read_model_sidecar(tmp_path)


def test_the_first_schema_and_none_are_read(tmp_path):
  for said in ("schema_version: 1\n", ""):
    (tmp_path / s.MODEL_FILE).write_text(RELEASED.replace("schema_version: 2\n", said))
    assert s.read_model_sidecar(tmp_path).layer_index == 20
