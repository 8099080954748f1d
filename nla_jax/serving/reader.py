"""What the server asks of a pair: the only module of this room that touches the NLA."""

import copy
import dataclasses
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nla_jax.autoencoder.answers import CUT, WarnOnce
from nla_jax.autoencoder.explanation import Claim
from nla_jax.autoencoder.fve import cosine, mse_nrm
from nla_jax.autoencoder.nla import NLA, Explanation
from nla_jax.conversation.tokens import Tokens
from nla_jax.evaluation.claims.attach import weighed
from nla_jax.evaluation.claims.confidence import Model
from nla_jax.evaluation.claims.evidence import Read
from nla_jax.models.parameters import transformer
from nla_jax.models.products import from_bits
from nla_jax.reading.reading import Reading
from nla_jax.serving.device import Show, Watch
from nla_jax.serving.limits import RefusedError
from nla_jax.version import VERSION


class Row(NamedTuple):
  """One activation to explain.

  Attributes:
    vector: [d_model] float32.
    stream: which random stream its draws come from, so that they do not depend on who shares the batch.
  """

  vector: np.ndarray
  stream: int


class Draw(NamedTuple):
  """How explanations are drawn; rows of one `Draw` share a batch.

  Attributes:
    temperature: of the draws.
    greedy: the likeliest words instead.
    max_new_tokens: cap on an answer.
    best_of: draws of which the one is kept that the AR rebuilds best.
    seed: of the draws.
  """

  temperature: float
  greedy: bool
  max_new_tokens: int
  best_of: int
  seed: int


class Reader:
  """A pair, as the server needs it.

  Attributes:
    nla: the pair.
    name: of the pair, as clients see it.
    rows: draws of one batch, at most.
    whole: whether the whole target is loaded, so that it can write; without it, its blocks 0..K.
    trust: by which claims are weighed, of the suite `confabulation`; None where nobody fitted one.
  """

  trust: Model | None = None

  def __init__(self, nla: NLA, name: str = "", rows: int = 64, whole: bool = True):
    # Of every batch of a poor pair the same would be said.
    nla = dataclasses.replace(nla, warn=WarnOnce())
    self.nla, self.name, self.rows, self.whole = nla, name, rows, whole
    # Its own tokenizer: these are not safe where another thread encodes.
    tokenizer = copy.deepcopy(nla.pair.tokenizer)
    pair = dataclasses.replace(nla.pair, tokenizer=tokenizer)
    self._words = dataclasses.replace(nla, pair=pair)
    self._prompt = _prompt_embeddings(nla)

  @property
  def width(self) -> int:
    """Numbers of an activation."""
    return self.nla.pair.verbalizer.architecture.d_model

  @property
  def layer(self) -> int:
    """K, 0-based."""
    return self.nla.pair.layer

  @property
  def temperature(self) -> float:
    """Of the pair's own draws."""
    return self.nla.pair.temperature

  @property
  def max_new_tokens(self) -> int:
    """The pair's own cap on an answer."""
    return self.nla.pair.max_new_tokens

  @property
  def baseline(self) -> float | None:
    """What an FVE is measured against."""
    return self.nla.baseline

  def facts(self) -> dict[str, Any]:
    """What `GET /` says of the pair."""
    device = jax.devices()[0]
    return {
      "server": f"nla_jax {VERSION}",
      "verbalizer_model": self.name,
      "reconstructor_available": True,
      "source_model": self.nla.base or None,
      "d_model": self.width,
      "extraction_layer": self.layer,
      "completion_available": self.whole,
      "claims_available": self.trust is not None,
      "num_cuda_devices": sum(one.platform == "gpu" for one in jax.devices()),
      **{f"{part}_device": device.platform for part in ("source", "verbalizer", "reconstructor")},
      "source_truncated": not self.whole,
      "baseline": self.baseline,
      "temperature": self.temperature,
      "max_new_tokens": self.max_new_tokens,
    }

  def tokens(self, what: Any, **options: Any) -> Tokens:
    """The tokens of a text or a conversation; called in the words' thread alone."""
    return self._words.tokens(what, **options)

  def activations(self, ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    """The target's activations [n, d_model] at tokens of a text."""
    [found] = self.nla.activations([ids], [positions])
    return found

  def explain(self, rows: Sequence[Row], draw: Draw, watch: Watch) -> list[Explanation]:
    """An explanation of each row."""
    options = {} if draw.greedy else {"temperature": draw.temperature}
    return self.nla.explain(
      np.stack([row.vector for row in rows]),
      greedy=draw.greedy,
      seed=draw.seed,
      batch=self.rows,
      best_of=draw.best_of,
      watch=watch,
      streams=[row.stream for row in rows],
      max_new_tokens=self._cap(draw.max_new_tokens),
      **options,
    )

  def warm_up(self) -> None:
    """Loads the target and compiles what a first request would wait for. Raises NLAError where there is no target."""
    tokens = self.tokens("a")
    # The whole target first: its lower blocks then serve the activations.
    if self.whole:
      self.complete(tokens.ids, Draw(1.0, False, 1, 1, 0))
    rows = [Row(vector, 0) for vector in self.activations(tokens.ids, [len(tokens) - 1])]
    self.explain(rows, Draw(self.temperature, False, self.max_new_tokens, 1, 0), _unwatched)

  def complete(self, ids: Sequence[int], draw: Draw, show: Show | None = None) -> list[int]:
    """Token ids that the target writes after a prompt; `show` is called with those so far.

    Raises:
      RefusedError: the target is not whole.
    """
    self._require_whole()
    options = {"greedy": True} if draw.greedy else {"temperature": draw.temperature}
    options |= {"max_new_tokens": draw.max_new_tokens, "seed": draw.seed}
    watch = None if show is None else lambda samples: show(samples[0])
    return self.nla.complete(ids, watch=watch, **options)[0]

  def steer(self, what: Any, position: int | str, edit: Any, options: dict[str, Any]) -> dict:
    """What steering did; see `NLA.steer`. Raises RefusedError where the target is not whole."""
    self._require_whole()
    return self.nla.steer(what, position, edit=edit, **options).to_json()

  def _require_whole(self) -> None:
    if not self.whole:
      raise RefusedError(
        503, "this server holds the target's lower blocks alone: start it without --no-completion"
      )

  def _cap(self, wanted: int) -> int:
    """The largest cap up to `wanted` that programs are compiled for: the pair's own, or a power of two below it.

    An answer beyond the pair's own cap is a failure in training, so nothing is lost with it.
    """
    if wanted >= self.max_new_tokens:
      return self.max_new_tokens
    return 2 ** (wanted.bit_length() - 1)

  def weigh(self, ids: Sequence[int], position: int, text: str, seed: int) -> tuple[Claim, ...]:
    """The claims of an explanation of one token, each with the probability that it is true.

    Raises:
      RefusedError: this server has nothing to weigh them by.
    """
    if self.trust is None or self.baseline is None:
      raise RefusedError(
        503, "this server cannot weigh claims: start it with --claims=metrics.json of this pair"
      )
    [vector] = self.activations(ids, [position])
    reads = [Read(ids, position, vector, text)]
    return weighed(self.nla, reads, self.trust, self.baseline, seed=seed, batch=self.rows)[0]

  def score(self, text: str, vector: np.ndarray) -> tuple[float, float]:
    """mse_nrm and cosine between an activation and what the AR rebuilds from a text."""
    rebuilt, vectors = self.nla.reconstruct([text]), vector[None]
    return float(mse_nrm(rebuilt, vectors)[0]), float(cosine(rebuilt, vectors)[0])

  def prompt_embeddings(self) -> tuple[np.ndarray, int]:
    """What the AV's prompt is in embeddings, [T, d_model] float32, and the index of its slot."""
    return self._prompt, len(self.nla.pair.prompts.before)

  def ending(self, found: Explanation) -> str:
    """Why an answer ended, as SGLang calls it."""
    return "length" if found.reason == CUT else "stop"

  def reading(
    self,
    tokens: Tokens,
    positions: Sequence[int],
    groups: Sequence[Sequence[Explanation]],
    norms: Sequence[float],
    best_of: int,
  ) -> Reading:
    """Samples of each position as a reading, the best first."""
    samples = [sorted(group, key=operator.attrgetter("error")) for group in groups]
    about = (best_of, self.layer, self.baseline, self.nla.base)
    return Reading(tokens, list(positions), samples, list(norms), *about)


def _prompt_embeddings(nla: NLA) -> np.ndarray:
  prompts, architecture = nla.pair.prompts, nla.pair.verbalizer.architecture
  ids = np.array([*prompts.before, *prompts.after])
  rows = from_bits(transformer(nla.av_params)["embedding"][ids])
  return np.asarray(rows, np.float32) * architecture.embedding_scale


def _unwatched(row: int, text: str) -> None:
  pass
