"""An AV and an AR that speak the same prompts: modules, prompts and tokenizer, without parameters.

The functions here are the only way from vectors to explanations and from explanations to vectors; training,
evaluation and the public API all call them.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.autoencoder.answers import Answer, decode_answers, read_answer
from nla_jax.autoencoder.prompts import Prompts
from nla_jax.autoencoder.rows import Inputs, ar_length, encode_inputs, encode_lines
from nla_jax.decoding.explanations import sample
from nla_jax.decoding.loop import Draws, Rollout, Sampling
from nla_jax.errors import NLAError
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import Lora, variables
from nla_jax.models.parameters import transformer, unembedding
from nla_jax.models.reconstructor import Reconstructor
from nla_jax.models.token_scores import KERNELS, TokenScores, token_scores
from nla_jax.models.verbalizer import INJECT_MAPS, INJECT_MODES, Verbalizer
from nla_jax.parallel import sharding


@dataclasses.dataclass(frozen=True)
class Pair:
  """What is fixed about an NLA besides its parameters.

  Attributes:
    verbalizer: the AV's module.
    reconstructor: the AR's module.
    prompts: both templates as ids.
    tokenizer: of the base model.
    layer: K, whose output is explained.
    max_new_tokens: cap on an AV's answer.
    temperature: of sampling.
    kernel: how `token_scores` computes: auto, on or off.
    ar_lines: lines of an explanation that the AR reads each by itself; 1 reads it whole.
  """

  verbalizer: Verbalizer
  reconstructor: Reconstructor
  prompts: Prompts
  tokenizer: Any
  layer: int
  max_new_tokens: int
  temperature: float = 1.0
  kernel: str = "auto"
  ar_lines: int = 1

  @functools.cached_property
  def ar_tokens(self) -> int:
    """Length of an AR input after its shared beginning: what an answer within the cap holds, or a line half of it."""
    around = len(self.prompts.answer_ids(self.tokenizer, ""))
    holds = max(self.max_new_tokens - around, 1)
    return ar_length(holds if self.ar_lines == 1 else -(-holds // 2), self.prompts, self.tokenizer)

  def roll_out(
    self,
    av_params,
    vectors,
    key,
    sample_ids,
    *,
    greedy: bool = False,
    temperature: float | None = None,
    max_new_tokens: int | None = None,
    watch: Callable[[list[str]], None] | None = None,
  ) -> Rollout:
    """Answers of the AV to activations; see `nla_jax.decoding.explanations`.

    Args:
      av_params: the AV's.
      vectors: [n, d_model] raw activations.
      key: random key of the call.
      sample_ids: [n·group] int32, which stream each answer draws from; those of one activation are adjacent.
      greedy: take the likeliest tokens.
      temperature: of sampling; None for the pair's own.
      max_new_tokens: cap on an answer; None for the pair's own.
      watch: is shown the raw answers so far, every few tokens.
    """
    before, after = jnp.asarray(self.prompts.before), jnp.asarray(self.prompts.after)
    vectors, sample_ids = map(jnp.asarray, sharding.shard_rows((vectors, sample_ids)))
    stop_ids = self.prompts.stop_ids
    cap = self.max_new_tokens if max_new_tokens is None else max_new_tokens
    sampling = Sampling(stop_ids=stop_ids, max_new_tokens=cap, greedy=greedy)
    draws = Draws(key, sample_ids, self.temperature if temperature is None else temperature)
    show = None if watch is None else lambda rollout: watch(self._raw(rollout)[0])
    fixed = {"model": self.verbalizer, "sampling": sampling, "watch": show}
    return sample(av_params, before, after, vectors, draws, **fixed)

  def read_answers(self, rollout: Rollout) -> list[Answer]:
    """Each answer, with the explanation in it or the reason why there is none."""
    return [read_answer(text, done) for text, done in zip(*self._raw(rollout))]

  def _raw(self, rollout: Rollout) -> tuple[list[str], list[bool]]:
    """Each answer as it was sampled, and whether it has ended."""
    fetched = map(sharding.fetch, (rollout.tokens, rollout.lengths, rollout.finished))
    tokens, lengths, finished = fetched

    # What ends an answer is none of its words; not every tokenizer flags it as special.
    rows = [row[: n - done] for row, n, done in zip(tokens, lengths, finished)]
    return decode_answers(self.tokenizer, rows), list(map(bool, finished))

  def parse_answers(self, rollout: Rollout) -> list[str | None]:
    """The explanation in each answer; None where it does not parse or hit the cap."""
    return [answer.explanation for answer in self.read_answers(rollout)]

  def sample_explanations(
    self, av_params, vectors: np.ndarray, key, **options
  ) -> tuple[list[str | None], np.ndarray]:
    """As `sample_answers`, but for the texts alone: None where an answer does not parse."""
    answers, lengths = self.sample_answers(av_params, vectors, key, **options)
    return [answer.explanation for answer in answers], lengths

  def sample_answers(
    self,
    av_params,
    vectors: np.ndarray,
    key,
    *,
    batch: int = 64,
    streams: Sequence[int] | None = None,
    on_batch=lambda n: None,
    watch: Callable[[int, list[str]], None] | None = None,
    **options,
  ) -> tuple[list[Answer], np.ndarray]:
    """Answers to any number of activations, one each.

    Args:
      av_params: the AV's.
      vectors: [n, d_model] raw activations.
      key: random key of the call; each row draws from a stream of its own.
      batch: activations explained at once.
      streams: number of each activation's stream; None counts them from 0.
      on_batch: called with the number of activations explained, after each batch.
      watch: is shown the index of a batch's first activation and the raw answers of the batch so far.
      options: further ones of `roll_out`.

    Returns:
      The answers, and the tokens [n] of each.
    """
    answers, lengths, batch = [], [], sharding.round_up_rows(batch)
    streams = np.arange(len(vectors)) if streams is None else np.asarray(streams)
    for start in range(0, len(vectors), batch):
      rows = np.asarray(vectors[start : start + batch], np.float32)
      # The last batch is filled up with its last row: one shape, so one set of programs.
      padded = np.concatenate([rows, np.repeat(rows[-1:], batch - len(rows), axis=0)])
      ids = streams[np.minimum(np.arange(start, start + batch), len(vectors) - 1)].astype(np.int32)
      if watch is not None:
        options["watch"] = functools.partial(_show, watch, start, len(rows))
      rollout = self.roll_out(av_params, padded, key, ids, **options)

      answers += self.read_answers(rollout)[: len(rows)]
      lengths.append(sharding.fetch(rollout.lengths)[: len(rows)])
      on_batch(len(rows))
    return answers, np.concatenate(lengths)

  def score_answers(self, av_params, vectors, tokens, temperature: float = 1.0) -> TokenScores:
    """The AV's scores of answers [n, length], given activations [n, d_model]; differentiable.

    Args:
      av_params: the AV's.
      vectors: raw activations.
      tokens: int32.
      temperature: divides the logits, as in sampling; 1 for the model's own distribution.
    """
    before, after = jnp.asarray(self.prompts.before), jnp.asarray(self.prompts.after)
    hidden = self.verbalizer.apply(variables(av_params), before, after, vectors, tokens)
    if temperature != 1:
      hidden = hidden / temperature  # the logits are linear in it
    matrix, dtype = unembedding(transformer(av_params)), self.verbalizer.dtype
    return token_scores(hidden, matrix, tokens, dtype, kernel=self.kernel)

  def rebuild(self, ar_params, tokens, lengths) -> jax.Array:
    """The AR's reconstructions [n, d_model] of encoded explanations; differentiable."""
    before = jnp.asarray(self.prompts.ar_before)
    return _rebuilt(ar_params, before, tokens, lengths, self.reconstructor)

  def encode(self, texts: Sequence[str | None], grow: bool = False) -> Inputs:
    """AR rows of explanations, in this pair's one shape; with `grow` in a longer one that holds every text."""
    about = (self.prompts, self.tokenizer, list(texts))
    if self.ar_lines > 1:
      return encode_lines(*about, self.ar_lines, self.ar_tokens, grow)
    return encode_inputs(*about, self.ar_tokens, grow)

  def reconstruct(self, ar_params, texts: Sequence[str | None], *, batch: int = 64) -> np.ndarray:
    """Reconstructions [n, d_model] float32 of texts of any length; None reads as an empty explanation.

    Raises:
      NLAError: a text is longer than the AR's model was made for, or what is rebuilt from one is no direction.
    """
    rows = self.encode(texts, grow=True)
    limit = self.reconstructor.architecture.max_positions - len(self.prompts.ar_before)
    # The rows themselves may be longer: what fills them up is never read.
    if (longest := int(rows.lengths.max())) > limit:
      raise NLAError(
        f"an explanation takes {longest} tokens and the AR's model was made for {limit}; shorten it"
      )

    out, batch = [], sharding.round_up_rows(batch)
    before = jnp.asarray(self.prompts.ar_before)
    for start in range(0, len(texts), batch):
      index = np.minimum(np.arange(start, start + batch), len(texts) - 1)
      tokens, lengths = sharding.shard_rows((rows.tokens[index], rows.lengths[index]))
      predicted = _reconstruct(ar_params, before, tokens, lengths, model=self.reconstructor)
      out.append(sharding.fetch(predicted)[: len(texts) - start])
    rebuilt = np.concatenate(out)
    _check_directions(rebuilt, texts)
    return rebuilt


def _show(watch: Callable[[int, list[str]], None], start: int, n: int, answers: list[str]) -> None:
  watch(start, answers[:n])


def _check_directions(rebuilt: np.ndarray, texts: Sequence[str | None]) -> None:
  """Raises NLAError where a reconstruction is zero or not finite: a score of it would look like any other."""
  largest = np.abs(rebuilt).max(axis=1)
  bad = np.flatnonzero(~np.isfinite(largest) | (largest == 0))
  if len(bad):
    kind = "zero" if largest[bad[0]] == 0 else "not finite"
    raise NLAError(
      f"what the AR rebuilds is {kind} for {len(bad)} of {len(rebuilt)} texts, the first is number {bad[0]}, "
      f"{(texts[bad[0]] or '')[:40]!r}: its weights are damaged or its training failed; take another checkpoint"
    )


@functools.partial(jax.jit, static_argnames="model")
def _reconstruct(params, before, tokens, lengths, *, model: Reconstructor):
  return _rebuilt(params, before, tokens, lengths, model)


def _rebuilt(params, before, tokens, lengths, model: Reconstructor) -> jax.Array:
  """Reconstructions [n, d_model] of rows, or of the lines [n, lines, length] of texts: the sum over the lines."""
  if tokens.ndim == 2:
    return model.apply(variables(params), before, tokens, lengths)

  # A line that is not there is read as one token, and counts for nothing.
  n, lines, length = tokens.shape
  flat = jnp.maximum(lengths, 1).reshape(n * lines)
  found = model.apply(variables(params), before, tokens.reshape(n * lines, length), flat)
  there = (lengths > 0)[..., None]
  return jnp.sum(jnp.where(there, found.reshape(n, lines, -1), 0), axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairSettings:
  """What a pair is made with, besides the base model and the prompts.

  Attributes:
    layer: K, whose output is explained.
    scale: α, the norm of the injected vector.
    mode: how it is injected, `replace` or `add`.
    map: `scalar` or `affine`.
    max_new_tokens: cap on an AV's answer.
    dtype: of the operands of matrix products.
    remat: recompute blocks in the backward pass.
    temperature: of sampling.
    kernel: how `token_scores` computes: auto, on or off.
    lora: adapters of the AV on a frozen base; None trains every leaf.
    ar_lora: likewise of the AR.
    ar_lines: lines of an explanation that the AR reads each by itself; 1 reads it whole.
  """

  layer: int
  scale: float
  mode: str = "replace"
  map: str = "scalar"
  max_new_tokens: int = 150
  dtype: Any = jnp.float32
  remat: bool = True
  temperature: float = 1.0
  kernel: str = "auto"
  lora: Lora | None = None
  ar_lora: Lora | None = None
  ar_lines: int = 1


def make_pair(
  architecture: Architecture, tokenizer: Any, prompts: Prompts, settings: PairSettings
) -> Pair:
  """Checks the choices and builds the modules. Raises NLAError."""
  s = settings
  if not 0 <= s.layer < architecture.n_layers:
    raise NLAError(f"config.layer={s.layer}: this model has blocks 0..{architecture.n_layers - 1}")
  for name, value, known in (
    ("inject.mode", s.mode, INJECT_MODES),
    ("inject.map", s.map, INJECT_MAPS),
    ("kernel", s.kernel, KERNELS),
  ):
    if value not in known:
      raise NLAError(f"config.{name}={value!r}: expected one of {', '.join(known)}")
  if s.ar_lines < 1:
    raise NLAError(
      f"config.prompts.ar_lines={s.ar_lines}: expected 1, or how many lines are read apart"
    )

  return Pair(
    Verbalizer(architecture, s.scale, s.mode, s.map, s.dtype, s.remat, s.lora),
    Reconstructor(architecture.lower(s.layer + 1), s.dtype, s.remat, s.ar_lora),
    prompts,
    tokenizer,
    s.layer,
    s.max_new_tokens,
    s.temperature,
    s.kernel,
    s.ar_lines,
  )
