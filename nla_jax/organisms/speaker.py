"""A language model that is asked, scored and read: the base, or the base with an organism's adapter merged into it."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.autoencoder.text import decode, encode
from nla_jax.conversation.tokens import Tokens
from nla_jax.decoding.residuals import residuals
from nla_jax.interop.adapters.merge import with_adapter
from nla_jax.interop.adapters.read import read_adapter
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.models.language_model import LanguageModel
from nla_jax.models.lora import FROZEN, variables
from nla_jax.models.parameters import as_base, unembedding
from nla_jax.models.token_scores import token_scores
from nla_jax.reading.complete import Drawing, Target, complete
from nla_jax.reading.inputs import tokens_of

Messages = Sequence[Mapping[str, str]]
_BATCH, _LENGTH = 16, 16  # rows that are scored at once, and what their lengths are rounded up to


@dataclasses.dataclass(frozen=True)
class Speaker:
  """A loaded model with its tokenizer.

  Attributes:
    target: the whole language model.
    tokenizer: of it.
  """

  target: Target
  tokenizer: Any

  def replies(
    self, conversations: Sequence[Messages], *, tokens: int, seed: int | None = None
  ) -> list[str]:
    """What the assistant answers at the end of each conversation.

    Args:
      conversations: lists of messages; an assistant's last message is continued.
      tokens: of an answer, at most.
      seed: of the draws; None for the likeliest words.
    """
    prompts = [self.tokens(one, ask=True).ids for one in conversations]
    drawing = Drawing(max_new_tokens=tokens, greedy=seed is None, seed=seed or 0)
    # Conversations of like length share a batch, and with it its padding; the draws follow the place in this order.
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    found = complete(self.target, [prompts[i] for i in order], drawing).tokens if order else []
    answers = dict(zip(order, (decode(self.tokenizer, ids) for (ids,) in found), strict=True))
    return [answers[i].strip() for i in range(len(prompts))]

  def tokens(self, messages: Messages, *, ask: bool = False) -> Tokens:
    """A conversation's tokens; with `ask` up to where the assistant speaks next."""
    begun = ask and messages[-1]["role"] == "assistant"
    return tokens_of(self.tokenizer, list(messages), reply=ask and not begun, resume=begun)

  def logprobs(self, beginnings: Sequence[str], ends: Sequence[str]) -> np.ndarray:
    """Mean log-probability (nats a token) of each end behind its beginning, plain texts, [n] float64."""
    rows = []
    for beginning, end in zip(beginnings, ends, strict=True):
      before = encode(self.tokenizer, beginning, special=True)
      rows.append((before, encode(self.tokenizer, end)))

    longest = max(len(before) + len(end) for before, end in rows)
    length = -(-longest // _LENGTH) * _LENGTH

    found = []
    for start in range(0, len(rows), _BATCH):
      part = rows[start : start + _BATCH]
      tokens, mask = np.zeros((_BATCH, length), np.int32), np.zeros((_BATCH, length), bool)
      for i, (before, end) in enumerate(part):
        tokens[i, : len(before) + len(end)] = before + end
        mask[i, len(before) : len(before) + len(end)] = True
      scores = np.asarray(_score(self.target.params, tokens, model=self.target.model), np.float64)

      of_ends = np.where(mask[:, 1:], scores, 0.0).sum(1) / np.maximum(mask[:, 1:].sum(1), 1)
      found.append(of_ends[: len(part)])
    return np.concatenate(found)

  def activations(
    self, texts: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], layer: int
  ) -> list[np.ndarray]:
    """Raw outputs of block K at tokens of each text: float32 [positions, d_model] each."""
    architecture, params = self.target.loaded
    dtype = self.target.model.dtype
    return residuals(params, texts, positions, architecture=architecture, layer=layer, dtype=dtype)


@functools.partial(jax.jit, static_argnames="model")
def _score(params: Any, tokens, *, model: LanguageModel):
  """Log-probabilities [rows, length - 1] of each token but the first."""
  read = variables({"transformer": {}, **params})
  hidden = model.clone(lora=FROZEN).apply(read, tokens[:, :-1])
  matrix = unembedding(params["base"])
  return token_scores(hidden, matrix, tokens[:, 1:], model.dtype).logprob


def load_speaker(model: str, adapter: str = "", dtype=jnp.float32) -> Speaker:
  """Loads a base model, with a PEFT adapter merged into it where one is named.

  Args:
    model: as `config.model`.
    adapter: a directory of PEFT's files; empty for none.
    dtype: of the operands of matrix products.

  Raises:
    NLAError: nothing is found under a name, or the adapter belongs to another base.
  """
  # The adapter is refused before weights are read.
  added = None
  if adapter:
    added = read_adapter(adapter, load_pretrained(model, weights=False).architecture)
  found = load_pretrained(model)
  params = found.params if added is None else with_adapter(found.params, added)
  params = params if jnp.dtype(dtype) == jnp.float32 else as_base(params)

  end = found.tokenizer.eos_token_id
  stops = dict.fromkeys([*found.ends, *([] if end is None else [end])])
  target = Target(LanguageModel(found.architecture, dtype), {"base": params}, tuple(stops))
  return Speaker(target, found.tokenizer)
