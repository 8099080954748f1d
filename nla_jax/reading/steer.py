"""Steering by an edited explanation: the vector that the edit makes, and what the target then writes.

Of the reconstructions r = AR(explanation), each at norm 1 because the AR's norms carry no meaning, Δ = r(edited) −
r(original). After block K the residual h becomes h + α‖h‖Δ/‖Δ‖ (`add`), or α‖h‖ r(edited) (`replace`). Beside the edit
stand three controls at the same α: a random direction, r(original), and Δ of an edit of an unrelated word. The same
random numbers draw the continuations of all of them.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nla_jax.autoencoder import given
from nla_jax.autoencoder.magnitude import Magnitude, needed
from nla_jax.autoencoder.text import decode
from nla_jax.conversation.messages import is_conversation, messages_of
from nla_jax.conversation.positions import choose
from nla_jax.decoding.continuations import Steering
from nla_jax.errors import NLAError
from nla_jax.models.injection import ADD, TURN
from nla_jax.reading.complete import Drawing, check_prompts, complete
from nla_jax.reading.edits import check_edit, edited, unrelated_edit
from nla_jax.reading.next_words import arms_of, first_tokens, likeliest_tokens
from nla_jax.reading.steered import ARMS, EDIT, RANDOM, UNEDITED, UNRELATED, UNSTEERED, Steered

MODES = {"add": ADD, "replace": TURN}
WHERE = ("position", "span", "generated")
SIZES = ("residual", "explained")
STRENGTHS = (0.5, 1.0, 2.0)
_MOST_STRENGTHS = 16
_NOTHING = 1e-6  # norm of a Δ of unit vectors that is no difference but rounding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How a target is steered.

  Attributes:
    mode: `add` the change of direction, or `replace` the residual's direction by the edited reconstruction's.
    where: the `position` that is explained; the `span` of all positions that are named, of which the last is
      explained; or `generated`: the prompt's last token and every one that is generated.
    tokens: of a continuation, at most; 0 writes none.
    samples: continuations of each vector.
    greedy: the likeliest tokens instead of a draw.
    temperature: divides the logits of a draw.
    words: whose next-token log-probability is returned, beside those of the edit.
    explanation: that is edited, in place of the one that is read.
    best_of: explanations drawn, of which the AR chooses one; 1 takes the likeliest words instead.
    size: of what replaces a residual: that of the `residual`, or as large as the pair's own head says of the
      `explained` activation, so that the whole reconstruction is patched in.

  Raises:
    NLAError: one of them is not what it should be.
  """

  mode: str = "add"
  where: str = "position"
  tokens: int = 32
  samples: int = 1
  greedy: bool = False
  temperature: float = 1.0
  words: Sequence[str] = ()
  explanation: str | None = None
  best_of: int = 4
  size: str = "residual"

  def __post_init__(self):
    for name, value, known in (
      ("mode", self.mode, MODES),
      ("where", self.where, WHERE),
      ("size", self.size, SIZES),
    ):
      if value not in known:
        raise NLAError(f"{name}={value!r}: expected one of {', '.join(known)}")
    if self.size == "explained" and (self.mode, self.where) != ("replace", "position"):
      raise NLAError(
        "size='explained' is that of one residual: take mode='replace' and where='position'"
      )
    if isinstance(self.words, str) or not all(isinstance(w, str) and w.strip() for w in self.words):
      raise NLAError(f"words={self.words!r:.60}: expected a list of words")
    if self.explanation is not None and not given.text(self.explanation).strip():
      raise NLAError("explanation is empty: leave it out, and the one that is read is edited")
    given.count("best_of", self.best_of)

  def drawing(self, seed: int) -> Drawing:
    """How continuations are drawn."""
    return Drawing(
      max_new_tokens=self.tokens,
      samples=self.samples,
      greedy=self.greedy,
      temperature=self.temperature,
      seed=seed,
    )


class Directions(NamedTuple):
  """What is added to the residual, or what replaces its direction.

  Attributes:
    of: {arm: [d_model] of norm 1}.
    cosine: between the two reconstructions.
    sizes: {arm: its length in lengths of the residual, at strength 1}; empty where all are 1.
  """

  of: dict[str, np.ndarray]
  cosine: float
  sizes: dict[str, float] = {}  # noqa: RUF012 - never changed


def strengths_of(strength: Any, mode: str) -> list[float]:
  """Every α once, in order. Raises NLAError where one is no finite number, or none that the mode can take."""
  array = given.numbers(strength, "strength").astype(np.float64).reshape(-1)
  if not 0 < len(array) <= _MOST_STRENGTHS:
    raise NLAError(f"strength has {len(array)} values: expected 1 to {_MOST_STRENGTHS}")
  # As the model will see it: what is finite in float64 may be infinite there.
  bad = [value for value in array.tolist() if not math.isfinite(np.float32(value))]
  if bad:
    raise NLAError(f"strength={bad[0]}: expected a finite number, such as 1.0")
  if mode == "replace" and array.min() <= 0:
    raise NLAError(
      f"strength={array.min():g}: what replaces a residual has a norm above 0, and 1.0 keeps the residual's; take "
      "mode='add' for a strength of 0 or below"
    )
  return sorted(set(array.tolist()))


def directions(reconstruct: Any, texts: Sequence[str], mode: str, seed: int) -> Directions:
  """The vectors of the edit and its controls.

  Args:
    reconstruct: from texts to [n, d_model]: the AR.
    texts: the explanation, the edited one, and the one with the edit of an unrelated word.
    mode: `add` or `replace`.
    seed: of the random vector.

  Raises:
    NLAError: the AR rebuilds the same from two of them, so that there is no direction between them.
  """
  # The AR is trained on directions alone: a difference of its raw outputs would hold that of two arbitrary norms.
  rebuilt = _unit(np.asarray(reconstruct(list(texts)), np.float64))
  original, changed, other = rebuilt
  random = np.random.default_rng(seed % 2**32).normal(size=original.shape)
  if mode == "add":
    for delta, what in ((changed - original, "the edit"), (other - original, "the unrelated edit")):
      if np.linalg.norm(delta) < _NOTHING:
        raise NLAError(
          f"{what} changes nothing in what the AR rebuilds: Δ is zero and has no direction; edit more of it"
        )
    vectors = (changed - original, random, original, other - original)
  else:
    # What replaces a residual is a reconstruction itself, so none of them can be zero.
    vectors = (changed, random, original, other)
  of = dict(zip((EDIT, RANDOM, UNEDITED, UNRELATED), _unit(np.stack(vectors)).astype(np.float32)))
  return Directions(of, float(original @ changed))


def steer(
  nla: Any, what: Any, position: Any, edit: Any, strength: Any, seed: int, options: Options
) -> Steered:
  """What the target of `nla` writes once an explanation is edited; see `NLA.steer`."""
  # 1. What can be wrong is said before anything is loaded.
  check_edit(edit)
  magnitude = needed(nla.magnitude) if options.size == "explained" else None
  strengths, seed = strengths_of(strength, options.mode), given.seed(seed)
  drawing, tokens = options.drawing(seed), _tokens(nla, what)
  chosen = choose(tokens, position, seed=seed)
  places = _places(chosen, options.where, len(tokens))
  words = first_tokens(nla.pair.tokenizer, edit, options.words)
  if options.explanation is not None:
    edited(options.explanation, edit)

  # 2. The explanation, its edits, and the vectors that they make.
  target = nla.whole_target
  check_prompts(target, [tokens.ids], options.tokens)
  (activation,) = nla.activations([tokens.ids], [[chosen[-1]]])
  explanation = options.explanation or _read(nla, activation, chosen[-1], seed, options)
  changed, other = edited(explanation, edit), unrelated_edit(explanation, edit, seed)
  found = directions(nla.reconstruct, (explanation, changed, other.text), options.mode, seed)
  norm = float(np.linalg.norm(np.asarray(activation[0], np.float64)))
  if magnitude is not None:
    found = found._replace(sizes=_sizes(found, magnitude, norm))

  # 3. The model without a vector and with each of them, from the same random numbers.
  rows = [(UNSTEERED, 0.0)] + [(name, one) for one in strengths for name in ARMS]
  steering = _steering(found, rows, places, nla.pair.layer, options)
  prompts = [tokens.ids] * len(rows)
  completions = complete(target, prompts, drawing, steering=steering, logprobs=True, shared=True)
  ids = likeliest_tokens(words, completions.logprobs[0])
  unsteered, *arms = arms_of(nla.pair.tokenizer, rows, completions, ids)

  return Steered(
    decode(nla.pair.tokenizer, tokens.ids, special=True),
    chosen[-1],
    places,
    options.where,
    options.mode,
    nla.pair.layer,
    explanation,
    changed,
    other,
    found.cosine,
    norm,
    ids,
    unsteered,
    arms,
  )


def _tokens(nla: Any, what: Any) -> Any:
  """The tokens that are continued: of a conversation, up to where the assistant goes on."""
  # A user's words are answered, an assistant's go on.
  last = None
  if is_conversation(what):
    last = messages_of(what)[-1]["role"]
  return nla.tokens(what, reply=last not in (None, "assistant"), resume=last == "assistant")


def _places(chosen: Sequence[int], where: str, length: int) -> list[int]:
  """Indices of the prompt's tokens that take the vector."""
  if where == "generated":
    # The first new token is predicted from the prompt's last one.
    return [length - 1]
  if where == "position" and len(chosen) > 1:
    raise NLAError(
      f"{len(chosen)} positions are named: name one, or take where='span', which steers all of them"
    )
  return list(chosen)


def _read(nla: Any, activation: Any, position: int, seed: int, options: Options) -> str:
  """The explanation at a position. Raises NLAError where the AV wrote none."""
  # One draw would be a random explanation; one alone is better the likeliest.
  n = options.best_of
  (found,) = nla.explain(activation, best_of=n, seed=seed, greedy=n == 1)
  if found.text is None:
    raise NLAError(
      f"the AV wrote no explanation at position {position} ({found.reason}): give one with explanation=…, or take "
      "another position or seed"
    )
  return found.text


def _unit(vectors: np.ndarray) -> np.ndarray:
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _sizes(found: Directions, magnitude: Magnitude, norm: float) -> dict[str, float]:
  """How large the pair says each vector is, in lengths of the residual; the random one is as large as the edit's."""
  said = {name: float(magnitude.norms(one[None])[0]) / norm for name, one in found.of.items()}
  return said | {RANDOM: said[EDIT]}


def _steering(
  found: Directions,
  rows: Sequence[tuple[str, float]],
  places: Sequence[int],
  layer: int,
  options: Options,
) -> Steering:
  # The row without a vector goes through the same program: what differs is the vector alone.
  return Steering(
    np.stack([found.of.get(name, found.of[EDIT]) for name, _ in rows]),
    [[] if name == UNSTEERED else list(places) for name, _ in rows],
    layer,
    MODES[options.mode],
    np.array([strength * found.sizes.get(name, 1.0) for name, strength in rows], np.float32),
    [options.where == "generated" and name != UNSTEERED for name, _ in rows],
  )
