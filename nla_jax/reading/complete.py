"""The whole target continues prompts, steered or not, with few compiled programs.

Prompts are padded to a length from a short list (`decoding.continuations`), rows to one of `ROWS` and samples to a
power of two, by repeating what is there; caps on new tokens to `BUCKET` times a power of two. A cap below ends the
token loop early and compiles nothing.
"""

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.autoencoder import given
from nla_jax.autoencoder.pair import Pair
from nla_jax.autoencoder.tokens import refuse_beyond
from nla_jax.decoding.continuations import Steering, continued, next_logprobs, read_prompts
from nla_jax.decoding.loop import BUCKET, Draws, Rollout, Sampling
from nla_jax.decoding.weights import decode_copy
from nla_jax.errors import NLAError
from nla_jax.models.architectures import Architecture
from nla_jax.models.language_model import LanguageModel
from nla_jax.models.parameters import as_base
from nla_jax.parallel import sharding

ROWS = (1, 8, 16, 32)  # prompts that are read at once
_ANSWERS = 64  # that are written at once, where a prompt has fewer samples
# Called with the samples of each prompt, as token ids.
Watch = Callable[[list[list[list[int]]]], None]
SAMPLES = 64  # of one prompt, at most


class Target(NamedTuple):
  """A whole language model that continues prompts.

  Attributes:
    model: its module.
    params: {"base": its tree}.
    stop_ids: tokens that end what it writes.
  """

  model: LanguageModel
  params: Any
  stop_ids: tuple[int, ...]

  @property
  def loaded(self) -> tuple[Architecture, Any]:
    """The architecture and the parameters, which can be read as well."""
    return self.model.architecture, self.params


def target_of(architecture: Architecture, params: Any, pair: Pair) -> Target:
  """A loaded language model as the target of a pair.

  Args:
    architecture: of the whole model.
    params: its tree, or {"base": tree} of a base that adapters share.
    pair: that explains it.
  """
  model = LanguageModel(architecture, pair.verbalizer.dtype)
  if "base" not in params:
    params = {"base": params if model.dtype == jnp.float32 else as_base(params)}
  # Read where it lies, or copied here once into the type that products take, instead of at every call.
  if not sharding.has_mesh():
    params = {"base": decode_copy({"transformer": {}, **params}, model.dtype)["base"]}

  # A text ends where the tokenizer says so, a turn where the chat template does.
  end, ends = pair.tokenizer.eos_token_id, pair.prompts.stop_ids
  more = () if end is None or end in ends else (end,)
  return Target(model, params, (*more, *ends))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
  """How continuations are drawn.

  Attributes:
    max_new_tokens: of each, at most; 0 writes none.
    samples: continuations of each prompt.
    greedy: the likeliest tokens instead of a draw.
    temperature: divides the logits of a draw.
    seed: of the draws.

  Raises:
    NLAError: one of them is no such number.
  """

  max_new_tokens: int = 64
  samples: int = 1
  greedy: bool = False
  temperature: float = 1.0
  seed: int = 0

  def __post_init__(self):
    if self.max_new_tokens != 0 or isinstance(self.max_new_tokens, bool):
      given.count("max_new_tokens", self.max_new_tokens)
    if given.count("samples", self.samples) > SAMPLES:
      raise NLAError(f"samples={self.samples}: expected at most {SAMPLES}; call several times")
    given.seed(self.seed)
    given.temperature(self.temperature)


class Completions(NamedTuple):
  """What a target writes after prompts.

  Attributes:
    tokens: of each prompt its samples, each without the token that ended it.
    logprobs: of every token after each prompt, [n, vocabulary], in nats; None where they were not asked for.
  """

  tokens: list[list[list[int]]]
  logprobs: np.ndarray | None


def complete(
  target: Target,
  prompts: Sequence[Sequence[int]],
  drawing: Drawing,
  *,
  steering: Steering | None = None,
  logprobs: bool = False,
  shared: bool = False,
  watch: Watch | None = None,
) -> Completions:
  """Continuations of prompts of any lengths.

  Args:
    target: the whole target.
    prompts: token ids of each.
    drawing: how many and how.
    steering: a vector for each prompt, or None.
    logprobs: whether the next token's are returned.
    shared: whether every prompt draws from the same random numbers, so that what differs is the prompt or its vector.
    watch: is shown what a block of prompts says so far, every few tokens.

  Raises:
    NLAError: an empty prompt, an id beyond the model, or a prompt whose answer leads beyond the model's positions.
  """
  check_prompts(target, prompts, drawing.max_new_tokens)
  several = _power_of_two(drawing.samples)
  # Each answer has a cache of its own, so many samples leave room for few prompts.
  limit = max([rows for rows in ROWS if rows * several <= _ANSWERS], default=1)
  tokens, found = [], []
  for start in range(0, len(prompts), limit):
    # Rows that fill a block up repeat its last one, and nobody looks at them.
    n = min(len(prompts) - start, limit)
    rows = sharding.round_up_rows(next(size for size in ROWS if size >= n))
    index = start + np.minimum(np.arange(rows), n - 1)
    part = _rows(steering, index)
    block = [prompts[i] for i in index]
    begin = _beginning(block, part)
    read = read_prompts(target.params, block, model=target.model, steering=part, shared=begin)

    if logprobs:
      found.append(next_logprobs(read)[:n])
    if drawing.max_new_tokens:
      streams = _streams(np.zeros_like(index) if shared else index, drawing.samples, several)
      tokens += _written(target, read, streams, drawing, part, watch)[:n]
    else:
      tokens += [[[] for _ in range(drawing.samples)] for _ in range(n)]
  return Completions(tokens, np.concatenate(found) if logprobs and found else None)


def check_prompts(target: Target, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
  """Raises NLAError where a prompt cannot be continued."""
  architecture = target.model.architecture
  for i, prompt in enumerate(prompts):
    if not len(prompt):
      raise NLAError(f"prompt {i} of {len(prompts)} is empty: give at least one token id")
    try:
      # Tokens of numpy and JAX are taken as well.
      ids = [operator.index(one) for one in prompt]
    except TypeError:
      raise NLAError(
        f"prompt {i} of {len(prompts)}: expected token ids, got {prompt!r:.40}"
      ) from None
    if min(ids) < 0:
      raise NLAError(
        f"prompt {i} of {len(prompts)} holds the token id {min(ids)}: expected 0 or more"
      )
    refuse_beyond(ids, architecture.vocab_size, "the prompt")
    if len(ids) + new_tokens > architecture.max_positions:
      raise NLAError(
        f"a prompt of {len(ids)} tokens and {new_tokens} new ones are beyond the {architecture.max_positions} that the "
        "model was made for: shorten the prompt or ask for fewer"
      )


def _written(
  target: Target,
  read: Any,
  streams: np.ndarray,
  drawing: Drawing,
  steering: Steering | None,
  watch: Watch | None,
) -> list[list[list[int]]]:
  """Of each prompt its samples."""
  cap = BUCKET * _power_of_two(-(-drawing.max_new_tokens // BUCKET))
  sampling = Sampling(stop_ids=target.stop_ids, max_new_tokens=cap, greedy=drawing.greedy)
  (ids,) = sharding.shard_rows((streams.reshape(-1).astype(np.int32),))
  # The temperature is an array, so that another one is no other program.
  warmth = jnp.asarray(drawing.temperature, jnp.float32)
  draws = Draws(jax.random.key(drawing.seed), jnp.asarray(ids), warmth)
  show = None if watch is None else lambda rollout: watch(_answers(rollout, streams, drawing))
  fixed = {"steering": steering, "limit": drawing.max_new_tokens, "watch": show}
  return _answers(continued(read, draws, sampling=sampling, **fixed), streams, drawing)


def _answers(rollout: Rollout, streams: np.ndarray, drawing: Drawing) -> list[list[list[int]]]:
  """Of each prompt its samples, as far as they are written."""
  fields = (rollout.tokens, rollout.lengths, rollout.finished)
  # What ended an answer is none of its words.
  answers = [
    row[: n - done].tolist() for row, n, done in zip(*map(sharding.fetch, fields), strict=True)
  ]
  several = streams.shape[1]
  return [answers[i * several : i * several + drawing.samples] for i in range(streams.shape[0])]


def _beginning(prompts: Sequence[Sequence[int]], steering: Steering | None) -> int:
  """How many tokens of one prompt that is steered in several ways come before every vector; 0 of other prompts."""
  if steering is None or len(prompts) == 1:
    return 0
  # Prompts that merely begin alike are not read together: numbers would depend on what shares their batch.
  if any(list(prompt) != list(prompts[0]) for prompt in prompts[1:]):
    return 0
  return min([len(prompts[0]) - 1, *(place for places in steering.positions for place in places)])


def _streams(index: np.ndarray, samples: int, several: int) -> np.ndarray:
  """[rows, several]: which stream each answer draws from; it does not depend on how many fill a block up."""
  return index[:, None] * samples + np.minimum(np.arange(several), samples - 1)


def _rows(steering: Steering | None, index: np.ndarray) -> Steering | None:
  """The vectors of some prompts."""
  if steering is None:
    return None
  every = np.broadcast_to(np.asarray(steering.generated), (len(steering.vectors),))
  strength = None if steering.strength is None else np.asarray(steering.strength)[index]
  return steering._replace(
    vectors=np.asarray(steering.vectors)[index],
    positions=[steering.positions[i] for i in index],
    strength=strength,
    generated=every[index].tolist(),
  )


def _power_of_two(n: int) -> int:
  return 1 << max(n - 1, 0).bit_length()
