"""What a plan has to know of a config's model: its shapes, and how many tokens its prompts have."""

from typing import NamedTuple

import numpy as np

from nla_jax.autoencoder.chat import with_chat_template
from nla_jax.autoencoder.prompts import Prompts, make_prompts
from nla_jax.autoencoder.rows import ar_length
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.find import cached_directory
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.models.architectures import Architecture
from nla_jax.planning.shapes import ARCHITECTURES

# Tokens of the reference templates where no tokenizer is at hand: what Qwen's and Llama's need, rounded up.
_ASSUMED = {
  "before": 144,
  "after": 16,
  "close": 2,
  "around_answer": 16,
  "ar_before": 8,
  "around_explanation": 8,
}


class Model(NamedTuple):
  """What the programs need to know of a config's model.

  Attributes:
    architecture: of the target.
    prompts: real ones, or zeros of assumed lengths.
    answer: tokens of a supervised answer, padding included.
    ar_input: tokens of an AR input after its shared beginning, padding included.
    counted: whether a tokenizer counted the tokens (else they are those of the reference templates).
  """

  architecture: Architecture
  prompts: Prompts
  answer: int
  ar_input: int
  counted: bool


def find_model(config) -> Model:
  """The config's model; called outside of any mesh.

  A model that is here is read, without its weights. The shapes of a hub id that is not here come from a table, and its
  prompts have the lengths that the reference templates have.
  """
  if config.prompts.ar_lines > 1:
    raise NLAError(
      f"config.prompts.ar_lines={config.prompts.ar_lines}: plans are of an AR that reads explanations whole; plan with "
      "--config.prompts.ar_lines=1, whose AR takes as many tokens"
    )
  if config.model in ARCHITECTURES and cached_directory(config.model) is None:
    return _assumed_model(config)

  found = load_pretrained(config.model, weights=False)
  c, tokenizer = config.prompts, with_chat_template(found.tokenizer, config.prompts.chat_template)
  prompts = make_prompts(tokenizer, c.av, c.ar, c.marker or None, found.ends)
  around = len(prompts.answer_ids(tokenizer, ""))
  ar_input = ar_length(max(config.rl.max_new_tokens - around, 1), prompts, tokenizer)
  return Model(
    found.architecture, prompts, _padded(config.teacher.max_tokens + around), ar_input, True
  )


def _assumed_model(config) -> Model:
  """The model of a hub id that is not here."""

  def ids(name: str) -> np.ndarray:
    # Which tokens they are changes no shape.
    return np.zeros(_ASSUMED[name], np.int32)

  prompts = Prompts(
    config.prompts.av,
    config.prompts.ar,
    "",
    0,
    0,
    0,
    ids("before"),
    ids("after"),
    (0,) * _ASSUMED["close"],
    ids("ar_before"),
    (0,) * _ASSUMED["around_explanation"],
    (0,),
  )
  answer = config.teacher.max_tokens + _ASSUMED["around_answer"]
  ar_input = config.rl.max_new_tokens - _ASSUMED["around_answer"] + _ASSUMED["around_explanation"]
  return Model(
    ARCHITECTURES[config.model], prompts, _padded(answer), _padded(ar_input), counted=False
  )


def _padded(n: int) -> int:
  """A length rounded up to eight tokens, as the encoders pad their rows."""
  return -(-n // 8) * 8
