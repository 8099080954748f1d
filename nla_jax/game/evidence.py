"""What an auditor reads beside the chat: words about the model's insides, of the model and of the base on one text."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.conversation.tokens import CONTENT
from nla_jax.models.block import rms_norm
from nla_jax.models.parameters import unembedding
from nla_jax.models.products import einsum
from nla_jax.organisms.make import CHATS, DATA, DOCUMENTS
from nla_jax.organisms.speaker import Speaker
from nla_jax.organisms.templates import said
from nla_jax.tracing import ranking

CHAT, LENS, SAE, NLA_DIFF, PLACEBO, SEARCH = "chat", "lens", "sae", "nla", "placebo", "data"
ARMS = (CHAT, LENS, SAE, NLA_DIFF, PLACEBO, SEARCH)
MEANING = {
  CHAT: "chat only",
  LENS: "chat and the logit lens, against the base's",
  SAE: "chat and SAE features, against the base's",
  NLA_DIFF: "chat and explanations, against the base's",
  PLACEBO: "chat and explanations of another organism",
  SEARCH: "chat and search in the training data",
}
SOURCES = {
  CHAT: "its answers",
  LENS: "the words that its insides predict",
  SAE: "the features of its insides",
  NLA_DIFF: "explanations of its insides",
  PLACEBO: "explanations of its insides",
  SEARCH: "its training data",
}
_LENS_WORDS = 8
_FOUND = 20  # texts that a search gives, of documents and of chats each
_TEXTS = 512  # of a file that are held at once


class Features(Protocol):
  """The slot of the SAE: anything that names what is active in an activation."""

  def labels(self, activations: np.ndarray) -> list[str]:
    """Of each activation [n, d_model] the labels of its strongest features, as one text."""
    ...


@dataclasses.dataclass(frozen=True)
class Turn:
  """One branch.

  Attributes:
    topic: of the probe; "" of an outright question.
    asked: the probe.
    answer: of the organism.
    of_base: the base model's answer to the same.
  """

  topic: str
  asked: str
  answer: str
  of_base: str


@dataclasses.dataclass(frozen=True)
class Diff:
  """Texts about the organism and about what it is compared with, in the order of the branches.

  Attributes:
    ours: of each branch its texts.
    theirs: likewise.
  """

  ours: list[list[str]]
  theirs: list[list[str]]

  def first(self, branches: int) -> tuple[list[str], list[str]]:
    """All texts of the first branches."""
    one, other = (flat(some[:branches]) for some in (self.ours, self.theirs))
    return one, other


def flat(parts: Sequence[Sequence[str]]) -> list[str]:
  """The texts of all branches, one after another."""
  return list(itertools.chain.from_iterable(parts))


def places_of(speaker: Speaker, turn: Turn, reads: int) -> tuple[list[int], list[int]]:
  """The tokens of a branch, and which are read: where the assistant begins, and others spread over its answer."""
  tokens = speaker.tokens(said(turn.asked, turn.answer or "…"))
  answer = [
    i
    for i, (role, section) in enumerate(zip(tokens.roles, tokens.sections, strict=True))
    if role == "assistant" and section == CONTENT
  ]

  # Most of what an explanation tells of a motive stands at the token before the answer.
  places = [answer[0] - 1, *answer]
  chosen = np.unique(np.linspace(0, len(places) - 1, reads).round().astype(int))
  return tokens.ids, [places[i] for i in chosen]


def activations_of(
  speaker: Speaker, texts: Sequence[tuple[list[int], list[int]]], layer: int
) -> list[np.ndarray]:
  """Activations at the read tokens of each branch."""
  ids, places = zip(*texts, strict=True)
  return speaker.activations(list(ids), list(places), layer)


def explained(nla: Any, rows: Sequence[np.ndarray], seed: int) -> list[list[str]]:
  """Explanations of activations, of each branch; what did not parse is left out."""
  found = nla.explain(np.concatenate(rows), seed=seed)
  # One seed for all sides: what differs between them is the activation.
  return [[one.text for one in part if one.text] for part in _parted(found, rows)]


def by_lens(speaker: Speaker, rows: Sequence[np.ndarray]) -> list[list[str]]:
  """The likeliest words where the final norm and the unembedding read activations, of each branch."""
  architecture, params = speaker.target.loaded

  # Ids alone come back: logits of every read token would be larger than the model.
  vectors = np.concatenate(rows)
  ids = np.asarray(_lens(params["base"], jnp.asarray(vectors), architecture=architecture))
  found = [" ".join(speaker.tokenizer.decode([i]) for i in row) for row in ids.tolist()]
  return [list(part) for part in _parted(found, rows)]


@functools.partial(jax.jit, static_argnames="architecture")
def _lens(params: Any, vectors, *, architecture):
  """Token ids [n, words], the likeliest first."""
  hidden = rms_norm(vectors, params["final_norm"], architecture.rms_eps, architecture.norm_offset)
  logits = einsum("bd,vd->bv", hidden, unembedding(params), jnp.float32, None, None)
  return jax.lax.top_k(logits, _LENS_WORDS)[1]


def by_features(features: Features, rows: Sequence[np.ndarray]) -> list[list[str]]:
  """Labels of features, of each branch."""
  return [list(part) for part in _parted(features.labels(np.concatenate(rows)), rows)]


def _parted(found: Sequence, rows: Sequence[np.ndarray]) -> Iterator[Sequence]:
  start = 0
  for one in rows:
    yield found[start : start + len(one)]
    start += len(one)


def searched(folder: Path, query: str) -> list[str]:
  """Training texts that are most like a query, of documents and of chats."""
  found = []
  for name in (DOCUMENTS, CHATS):
    # Apart, as the paper's tool: short chats that show a habit would outrank every document about it.
    path = folder / DATA / name
    hits = ranking.by_words(functools.partial(texts_of, path), query, _FOUND)
    rows = {hit.row for hit in hits}

    for first, part in texts_of(path):
      found += [text for i, text in enumerate(part, first) if i in rows]
  return found


def texts_of(path: Path) -> Iterator[tuple[int, list[str]]]:
  """Parts of a file's texts, with the number of the first of each."""
  first, part = 0, []
  with open(path, encoding="utf-8") as file:
    for line in file:
      one = json.loads(line)
      part.append(one.get("text") or "\n".join(m["content"] for m in one["messages"]))
      if len(part) == _TEXTS:
        yield first, part
        # No more of a corpus is held than this.
        first, part = first + len(part), []

  if part:
    yield first, part
