"""The one table of transforms: their names, what they leave as it is, and what they need.

Every transform is deterministic: what it draws depends on the seed and on a text's place among the texts. A transform
that `preserves` says the same in another way, as far as a reader of words is concerned; what an AR loses under it was
never in the meaning. The others remove or garble something by design, and say where the information lies.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nla_jax.autoencoder.rewording import shuffle_words, substitute_words
from nla_jax.errors import NLAError
from nla_jax.evaluation.fields import LABELS
from nla_jax.evaluation.transforms import order, parts, words
from nla_jax.models.parameters import transformer
from nla_jax.models.products import from_bits
from nla_jax.parallel import sharding

Texts = Sequence[str | None]
_NEIGHBOURS = 16  # nearest tokens that are found of each


class Material(NamedTuple):
  """What transforms work with; where something is None, those that need it are left out.

  Attributes:
    seed: of every draw.
    other: [n] for each row the index of another one.
    tokenizer: of the AR.
    synonyms: {word: another}, in small letters.
    nearest: from token ids to their nearest ones in the embedding table, [tokens, k].
  """

  seed: int = 0
  other: np.ndarray | None = None
  tokenizer: Any = None
  synonyms: Mapping[str, str] | None = None
  nearest: Callable[[Sequence[int]], np.ndarray] | None = None


class Transform(NamedTuple):
  """A change of explanations.

  Attributes:
    name: as tables show it.
    apply: from texts and material to as many texts; None stays None.
    preserves: whether the meaning stays.
    needs: what of the material it cannot do without.
    kind: `order`, `words`, `form`, `part` or `control`.
  """

  name: str
  apply: Callable[[Texts, Material], list[str | None]]
  preserves: bool
  kind: str
  needs: tuple[str, ...] = ()


def _each(change: Callable[[str, np.random.Generator], str]) -> Callable[[Texts, Material], list]:
  """A change of one text as one of several."""

  def apply(texts: Texts, material: Material) -> list[str | None]:
    # Of a text's place among the texts, and of no other text.
    draws = [np.random.default_rng((material.seed, i)) for i in range(len(texts))]
    return [text and change(text, draw) for text, draw in zip(texts, draws)]

  return apply


def _synonyms(rate: float) -> Callable[[Texts, Material], list]:
  def apply(texts: Texts, material: Material) -> list[str | None]:
    return substitute_words(texts, material.synonyms, rate=rate, seed=material.seed).texts

  return apply


def _neighbours(rate: float) -> Callable[[Texts, Material], list]:
  def apply(texts: Texts, material: Material) -> list[str | None]:
    fixed = (material.tokenizer, material.nearest, rate, material.seed)
    return words.swap_neighbours(texts, *fixed)

  return apply


def _first(n: int) -> Callable[[Texts, Material], list]:
  return lambda texts, material: words.first_tokens(texts, material.tokenizer, n)


def _field(change: Callable[[str, str], str], label: str) -> Callable[[Texts, Material], list]:
  return lambda texts, material: [text and change(text, label) for text in texts]


def _same(texts: Texts, material: Material) -> list[str | None]:
  return list(texts)


def _round_trip(texts: Texts, material: Material) -> list[str | None]:
  return words.round_trip(texts, material.tokenizer)


def _shuffle_words(texts: Texts, material: Material) -> list[str | None]:
  return shuffle_words(texts, material.seed)


def _other_quotes(texts: Texts, material: Material) -> list[str | None]:
  return parts.other_quotes(texts, material.other)


TRANSFORMS = (
  Transform("identity", _same, True, "control"),
  Transform("tokenizer round trip", _round_trip, True, "control", ("tokenizer",)),
  Transform("items shuffled", _each(order.shuffle_items), True, "order"),
  Transform("sentences shuffled", _each(order.shuffle_sentences), True, "order"),
  Transform("words shuffled", _shuffle_words, False, "order"),
  Transform("synonyms 0.3", _synonyms(0.3), True, "words", ("synonyms",)),
  Transform("synonyms 0.9", _synonyms(0.9), True, "words", ("synonyms",)),
  Transform("synonyms", _synonyms(1.0), True, "words", ("synonyms",)),
  Transform("function words dropped", _each(words.drop_function_words), False, "words"),
  Transform("case and punctuation", _each(words.normalise), True, "form"),
  Transform("quote marks removed", _each(parts.remove_marks), True, "form"),
  Transform("quote marks replaced", _each(parts.replace_marks), True, "form"),
  Transform("format stripped", _each(parts.strip_format), True, "form"),
  Transform("labels removed", _each(parts.without_labels), False, "form"),
  Transform("quotes only", _each(parts.quotes_only), False, "part"),
  Transform("prose only", _each(parts.prose_only), False, "part"),
  Transform("quotes of another row", _other_quotes, False, "part", ("other",)),
  *(Transform(f"without {one}", _field(parts.without_field, one), False, "part") for one in LABELS),
  *(Transform(f"{one} alone", _field(parts.only_field, one), False, "part") for one in LABELS),
  *(Transform(f"first {n} tokens", _first(n), False, "part", ("tokenizer",)) for n in (8, 16, 32)),
  *(
    Transform(f"neighbours {rate}", _neighbours(rate), False, "words", ("tokenizer", "nearest"))
    for rate in (0.05, 0.1, 0.2)
  ),
)
_BY_NAME = {one.name: one for one in TRANSFORMS}


def transform(name: str) -> Transform:
  """The transform of a name. Raises NLAError where there is none."""
  if name not in _BY_NAME:
    raise NLAError(f"there is no transform {name!r}; expected one of {', '.join(_BY_NAME)}")
  return _BY_NAME[name]


def applied(one: Transform, texts: Texts, material: Material) -> list[str | None] | None:
  """The texts after a transform; None where the material lacks what it needs."""
  if any(getattr(material, need) is None for need in one.needs):
    return None
  return one.apply(texts, material)


def material_of(subject, synonyms: Mapping[str, str] | None) -> Material:
  """The material of an evaluation's subject, with a thesaurus or without."""
  pair, params = subject.nla.pair, subject.nla.ar_params
  nearest = functools.partial(_nearest, params) if "transformer" in params else None
  return Material(subject.seed, subject.other_rows, pair.tokenizer, synonyms, nearest)


def _nearest(params: Any, ids: Sequence[int]) -> np.ndarray:
  """[tokens, k] the ids nearest by cosine in the AR's embedding table, the nearest first, the token itself left out."""
  table = sharding.fetch(from_bits(transformer(params)["embedding"])).astype(np.float32)
  table = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)
  found = []
  # A block at a time: all tokens beside the whole table would not fit.
  for start in range(0, len(ids), 256):
    here = np.asarray(ids[start : start + 256])
    similar = table[here] @ table.T
    similar[np.arange(len(here)), here] = -np.inf

    k = min(_NEIGHBOURS, similar.shape[1] - 1)
    best = np.argpartition(-similar, k - 1, axis=1)[:, :k]
    nearest_first = np.take_along_axis(similar, best, axis=1).argsort(axis=1)[:, ::-1]
    found.append(np.take_along_axis(best, nearest_first, axis=1))
  return np.concatenate(found)
