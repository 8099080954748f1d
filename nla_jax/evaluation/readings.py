"""What a judge is given to read of an item: the explanation, and every row that it must be compared with.

The names are those of a table's rows: explanation, greedy, before_rl, teacher, retrieval, last_words, last_4_words,
last_16_words, last_token, next_tokens, topic_words, shuffled, empty, skyline, and those of `rivals`. A row is left out
where the subject lacks it.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from nla_jax.autoencoder.text import decode
from nla_jax.evaluation import rivals
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suites.baselines.last_words import last_tokens
from nla_jax.evaluation.suites.baselines.retrieval import nearest_rows

Readings = dict[str, list[str | None]]
_ENDS = (4, 16)  # last tokens of a context that a reader of the text alone is given
_SKYLINE_TOKENS = 96  # of the end of a context that the skyline reads
# The teacher's line of topics, as data/teachers/readout.py writes it.
_TOPICS = re.compile(r"^About:\s*(.*)$", re.MULTILINE)


def of_rows(subject: Subject, index: np.ndarray) -> Readings:
  """What there is to read of held-out rows.

  Args:
    subject: of the evaluation.
    index: [k] which of its rows.
  """
  sampled = subject.sampled.texts
  found: Readings = {
    "explanation": [sampled[i] for i in index],
    "greedy": [subject.greedy.texts[i] for i in index],
  }
  if subject.before_rl is not None:
    found["before_rl"] = [subject.sampled_before_rl.texts[i] for i in index]
  if subject.teacher_texts is not None:
    found["teacher"] = [subject.teacher_texts[i] for i in index]
    found |= _retrieved(subject, index)

  vectors = subject.activations[index]
  contexts = [subject.documents[i].tokens[: subject.positions[i] + 1] for i in index]
  found |= of_contexts(subject, vectors, contexts, found["explanation"])
  if "next_tokens" in subject.store.names:
    found["next_tokens"] = _next_tokens(subject, index)
  # Of explanations in the teacher's form alone.
  if any(_TOPICS.search(text or "") for text in found["explanation"]):
    found["topic_words"] = [_topics(text) for text in found["explanation"]]
  found["shuffled"] = [sampled[subject.other_rows[i]] for i in index]
  return found


def of_contexts(
  subject: Subject,
  vectors: np.ndarray,
  contexts: Sequence[np.ndarray],
  explanations: Sequence[str | None],
) -> Readings:
  """What the context alone gives to read, at the length of the explanations where that matters.

  Args:
    subject: of the evaluation.
    vectors: [k, d] activations at the end of each context.
    contexts: token ids of each, up to the explained one.
    explanations: of each; an item without one has no last words either.
  """
  tokenizer = subject.nla.pair.tokenizer
  lengths = map(
    len, tokenizer([one or "" for one in explanations], add_special_tokens=False)["input_ids"]
  )
  ends = [last_tokens(ids, len(ids) - 1, n) for ids, n in zip(contexts, lengths)]
  # A reader of the text alone: it has as many words as an explanation, and then a fixed number of them.
  fixed = {
    f"last_{n}_words": [decode(tokenizer, ids[-n:]).strip() for ids in contexts] for n in _ENDS
  }
  return {
    "last_words": [decode(tokenizer, ids).strip() for ids in ends],
    **fixed,
    "last_token": [decode(tokenizer, ids[-1:]).strip() for ids in contexts],
    **rivals.texts(subject, vectors),
    "empty": [""] * len(contexts),
    "skyline": [decode(tokenizer, ids[-_SKYLINE_TOKENS:]).strip() for ids in contexts],
  }


def first_tokens(tokenizer: Any, texts: Sequence[str | None], n: int) -> list[str]:
  """The first `n` tokens of each text."""
  every = tokenizer([text or "" for text in texts], add_special_tokens=False)["input_ids"]
  return [decode(tokenizer, ids[:n]).strip() for ids in every]


def _retrieved(subject: Subject, index: np.ndarray) -> Readings:
  """The teacher's text of the nearest training activation that has one."""
  held = np.array([int(row) in subject.texts for row in subject.training_rows], bool)
  if not held.any():
    return {}
  nearest = nearest_rows(subject.activations[index], subject.training_activations[held])
  rows = subject.training_rows[held][nearest]
  return {"retrieval": [subject.texts[int(row)] for row in rows]}


def _next_tokens(subject: Subject, index: np.ndarray) -> list[str | None]:
  """The target's likeliest next tokens, as extraction kept them."""
  tokens = subject.store.read("next_tokens", subject.rows[index])
  return [decode(subject.nla.pair.tokenizer, row) for row in tokens]


def _topics(text: str | None) -> str:
  found = _TOPICS.search(text or "")
  return found[1] if found else ""
