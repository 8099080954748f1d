"""The training examples that are most like a phrase, an explanation or an incident, by several methods side by side."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nla_jax.errors import NLAError
from nla_jax.tracing import index as indexes
from nla_jax.tracing import ranking
from nla_jax.tracing.index import ACTIVATIONS, EXPLAINED, WORDS, Embed, Index
from nla_jax.tracing.ranking import Hit

# Baselines read words alone; `fused` ranks by the two that read the model.
BM25, EMBEDDING, OF_EXPLANATIONS, OF_ACTIVATIONS, FUSED = (
  "bm25",
  "embedding",
  "explanations",
  "activations",
  "fused",
)
MEANING = {
  BM25: "words of the text (BM25)",
  EMBEDDING: "embedding of the text",
  OF_EXPLANATIONS: "embedding of the explanation",
  OF_ACTIVATIONS: "activation",
  FUSED: "explanation and activation, ranks fused",
}
_DEEP = 10  # times k: how far down two lists are fused


@dataclasses.dataclass(frozen=True)
class Query:
  """What is looked for.

  Attributes:
    text: words of it: a phrase, or what was said in an incident.
    explanations: texts about its activations; a phrase may stand for one.
    activations: [n, d_model], or None.
  """

  text: str
  explanations: Sequence[str] = ()
  activations: np.ndarray | None = None


def phrase(text: str) -> Query:
  """A phrase or an explanation: it is compared with texts and with explanations."""
  if not text.strip():
    raise NLAError("the phrase is empty: there is nothing to trace")
  return Query(text, [text])


def incident(nla: Any, what: Sequence[Any], index: Index) -> Query:
  """Texts or conversations in which something happened, read as the index was.

  Raises:
    NLAError: there is none, or the index is of another base.
  """
  if not what:
    raise NLAError("the incident holds no text and no conversation: there is nothing to trace")
  made = index.store.manifest["made_from"]
  if "base" in made and made["base"] != nla.base:
    raise NLAError(
      f"the index was made with {made['base']} and this pair explains {nla.base}: give the pair of the index"
    )

  # As the index was read: explanations by other draws would be less alike.
  vectors = indexes.vectors_of(nla, what, index.making)
  found = nla.explain(vectors, greedy=True, seed=index.making.seed)
  said = [one if isinstance(one, str) else "\n".join(m["content"] for m in one) for one in what]
  return Query("\n".join(said), [one.text for one in found if one.text], vectors)


def trace(index: Index, query: Query, k: int, embed: Embed) -> dict[str, list[Hit]]:
  """The k best examples by each method that index and query allow; the baselines first.

  Args:
    index: of the corpus.
    query: what is looked for.
    k: how many.
    embed: the index's embedder.
  """
  found = {BM25: ranking.by_words(functools.partial(index.texts, "text"), query.text, k)}
  found[EMBEDDING] = ranking.by_vectors(index.vectors(WORDS), embed([query.text]), k)

  names, deep = index.store.names, max(k, _DEEP * k)
  if EXPLAINED in names and query.explanations:
    vectors = np.asarray(embed(list(query.explanations)))
    found[OF_EXPLANATIONS] = ranking.by_vectors(index.vectors(EXPLAINED), vectors, deep)
  if ACTIVATIONS in names and query.activations is not None:
    vectors = query.activations - index.mean
    found[OF_ACTIVATIONS] = ranking.by_vectors(index.vectors(ACTIVATIONS), vectors, deep)

  # Ranks, not scores: cosines of texts and of activations are of different sizes.
  both = [found[name] for name in (OF_EXPLANATIONS, OF_ACTIVATIONS) if name in found]
  if len(both) == 2:
    found[FUSED] = ranking.fused(both, k)
  return {name: hits[:k] for name, hits in found.items()}


def to_json(index: Index, found: Mapping[str, Sequence[Hit]]) -> dict[str, list[dict[str, Any]]]:
  """Every hit with its example, as JSON values."""
  return {
    name: [{"row": hit.row, "score": hit.score, **index.example(hit.row)} for hit in hits]
    for name, hits in found.items()
  }


def precisions(
  index: Index, found: Mapping[str, Sequence[Hit]], planted: Sequence[str], k: int
) -> dict[str, float]:
  """Of each method the share of its first k examples whose ids are planted.

  Raises:
    NLAError: an id is of no example of the index.
  """
  # A shard at a time, as everything here.
  wanted, rows, first = set(planted), set(), 0
  for first, ids in index.texts("id"):
    rows |= {first + i for i, one in enumerate(ids) if one in wanted}
    wanted -= set(ids)

  if wanted:
    raise NLAError(f"the planted id {min(wanted)!r} is of no example of the index: check the list")
  return {name: ranking.precision(hits, rows, k) for name, hits in found.items()}
