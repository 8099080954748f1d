"""W1: the frozen target as a reader of words, by pointwise mutual information.

An option's score is what the explanation adds to its log-probability: log p(option | frame with the text) less
log p(option | frame without it), in nats a token. The target has never been trained with the AV or the AR, so a code
between them tells it nothing. Each text is read once, and its options go through behind it.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.autoencoder.text import encode
from nla_jax.decoding.continuations import read_prompts
from nla_jax.evaluation.judges.judge import CONTINUATION, Frame, Judge, Question
from nla_jax.models.cache import Cache, repeat_rows, repeated, with_room
from nla_jax.models.language_model import LanguageModel
from nla_jax.models.lora import variables
from nla_jax.models.parameters import transformer, unembedding
from nla_jax.models.token_scores import token_scores
from nla_jax.parallel import sharding
from nla_jax.reading.complete import Target

_TEXTS = 4  # read at once
_OPTIONS = 10  # behind one reading, where no text is read
_STEP = 8  # tokens by which options grow, so that few programs are compiled
_NOTHING = "(none)"  # what stands for an empty explanation


class FrozenTarget(Judge):
  """The likelihood of options under a language model.

  Attributes:
    name: as tables show it.
    target: the whole model.
    tokenizer: of it.
  """

  name = "frozen target"

  def __init__(self, target: Target, tokenizer: Any):
    self.target, self.tokenizer = target, tokenizer
    self._prior: dict[tuple[Frame, str], float] = {}

  def scores(self, questions: Sequence[Question], frame: Frame = CONTINUATION) -> list[np.ndarray]:
    """Nats a token that the text adds to each option; zeros without a text."""
    # What every option has without a text is computed once, however many texts are compared on it.
    options = [option for one in questions for option in one.options]
    new = [o for o in dict.fromkeys(options) if (frame, o) not in self._prior]
    several = [tuple(new[i : i + _OPTIONS]) for i in range(0, len(new), _OPTIONS)]
    priors = self.logprobs([Question(_NOTHING, some) for some in several], frame)
    for some, values in zip(several, priors):
      self._prior |= {(frame, option): float(value) for option, value in zip(some, values)}

    spoken = [i for i, one in enumerate(questions) if (one.text or "").strip()]
    found = [np.zeros(len(one.options)) for one in questions]
    logprobs = self.logprobs([questions[i] for i in spoken], frame)
    for i, values in zip(spoken, logprobs):
      found[i] = values - np.array([self._prior[frame, o] for o in questions[i].options])
    return found

  def logprobs(self, questions: Sequence[Question], frame: Frame) -> list[np.ndarray]:
    """Mean log-probability of each option's tokens behind its text, in nats."""
    prompts = [self._ids(frame.before.format(text=one.text), special=True) for one in questions]
    options = [
      [self._ids(frame.option.format(option=option)) for option in one.options] for one in questions
    ]

    # Texts of like length and options of like number share a program.
    found: list[np.ndarray] = [np.zeros(0)] * len(questions)
    order = sorted(range(len(questions)), key=lambda i: (len(options[i]), len(prompts[i])))
    while order:
      several = len(options[order[0]])
      block = [i for i in order[:_TEXTS] if len(options[i]) == several]
      order = order[len(block) :]
      values = self._block([prompts[i] for i in block], [options[i] for i in block])
      for i, row in zip(block, values):
        found[i] = row
    return found

  def _ids(self, text: str, special: bool = False) -> list[int]:
    ids = encode(self.tokenizer, text, special=special)
    # A tokenizer without a BOS may read an empty frame as nothing.
    return ids or [self.tokenizer.eos_token_id or 0]

  def _block(self, prompts: list[list[int]], options: list[list[list[int]]]) -> np.ndarray:
    """[texts, options] mean log-probabilities of texts with equally many options."""
    n, several = len(prompts), len(options[0])
    index = np.minimum(np.arange(sharding.round_up_rows(_TEXTS)), n - 1)
    read = read_prompts(self.target.params, [prompts[i] for i in index], model=self.target.model)

    rows = [ids for i in index for ids in options[i]]
    length = -(-max(map(len, rows)) // _STEP) * _STEP
    tokens, valid = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), bool)
    for row, ids in enumerate(rows):
      tokens[row, : len(ids)], valid[row, : len(ids)] = ids, True
    given = sharding.shard_rows((tokens, valid))
    found = _mean_logprobs(read.params, read.hidden, read.cache, *given, model=read.model)
    return sharding.fetch(found).reshape(len(index), several)[:n]


def _states(model: LanguageModel, tokens, valid, cache: Cache):
  """Hidden states behind what a cache holds."""
  return model.transformer(tokens, valid=valid, cache=cache).hidden


@functools.partial(jax.jit, static_argnames="model")
def _mean_logprobs(params: Any, hidden, cache: Cache, tokens, valid, *, model: LanguageModel):
  """[rows] mean log-probability of the valid `tokens`; rows of one text are adjacent."""
  rows, length = tokens.shape
  cache = with_room(repeated(cache, rows), cache.length + length)
  behind = model.apply(variables(params), tokens, valid, cache, method=_states)

  # An option's first token follows the text, each other one the token before it.
  first = repeat_rows(hidden, rows, 0, "batch", None)
  states = jnp.concatenate([first[:, None], behind[:, :-1]], axis=1)
  matrix = unembedding(transformer(params))
  logprob = token_scores(states, matrix, tokens, model.dtype, kernel="off").logprob
  return jnp.sum(jnp.where(valid, logprob, 0.0), axis=1) / jnp.sum(valid, axis=1)
