"""Transforms that a language model by provider does: prompts as data, every answer checked, failures counted.

An answer that fails a check is no such transform of that text; its row is left out of the score, never replaced.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import yaml

from nla_jax.evaluation.fields import fields_of, quotes_of, sentences_of
from nla_jax.evaluation.judges.language_model import Asks

_ANSWER = re.compile(r"<rewrite>\s*(.*?)\s*</rewrite>", re.DOTALL | re.IGNORECASE)
_WORD = re.compile(r"\w[\w'’-]*")
_ASKED = "{prompt}\nAnswer with the new text alone, in <rewrite> tags.\n\n<text>\n{text}\n</text>"


class Rewrite(NamedTuple):
  """A transform by provider.

  Attributes:
    name: as tables show it.
    preserves: whether the meaning stays.
    prompt: what is asked.
    checks: what an answer must satisfy, see rewrites.yaml.
  """

  name: str
  preserves: bool
  prompt: str
  checks: Mapping[str, Any]


class Rewritten(NamedTuple):
  """What came of a transform.

  Attributes:
    texts: [n] rewritten ones; the text before where there was none, or the answer failed.
    usable: [n] whether the row counts: there was a text, and its answer passed.
    failures: how many answers failed each check.
  """

  texts: list[str | None]
  usable: np.ndarray
  failures: dict[str, int]


@functools.cache
def rewrites() -> tuple[Rewrite, ...]:
  """All of them, in the order of the file."""
  return tuple(Rewrite(**one) for one in _data()["rewrites"])


@functools.cache
def _data() -> dict[str, Any]:
  file = resources.files("nla_jax.evaluation.transforms") / "rewrites.yaml"
  return yaml.safe_load(file.read_text(encoding="utf-8"))


def rewrite(client: Asks, one: Rewrite, texts: Sequence[str | None]) -> Rewritten:
  """Asks for a transform of texts, and checks what comes.

  Raises:
    NLAError: the provider has no key, its ceiling is reached, or it does not answer; what was answered is kept.
  """
  spoken = [i for i, text in enumerate(texts) if text]
  # What stands in a text is not filled in.
  asked = [_ASKED.replace("{prompt}", one.prompt).replace("{text}", texts[i]) for i in spoken]
  found, usable, failures = list(texts), np.zeros(len(texts), bool), Counter()
  for i, answer in zip(spoken, client.ask(asked), strict=True):
    inside = _ANSWER.findall(answer)
    after = inside[-1] if inside else ""
    reason = failed(one.checks, texts[i], after)
    if reason:
      failures[reason] += 1
    else:
      found[i], usable[i] = after, True
  return Rewritten(found, usable, dict(failures))


def failed(checks: Mapping[str, Any], before: str, after: str) -> str:
  """The first check that a rewritten text fails; "" where it passes all."""
  if not after.strip():
    return "no answer"
  return next(
    (name for name, bound in checks.items() if not _CHECKS[name](before, after, bound)), ""
  )


def _items(before: str, after: str, wanted: bool) -> bool:
  return len(fields_of(before)) == len(fields_of(after)) or not wanted


def _moved(before: str, after: str, wanted: bool) -> bool:
  return before.split() != after.split() or not wanted


def _overlap(before: str, after: str, bounds: Sequence[float]) -> bool:
  return bounds[0] <= _shared(after, before) <= bounds[1]


def _kept(before: str, after: str, least: float) -> bool:
  return _shared(before, after) >= least


def _length(before: str, after: str, bounds: Sequence[float]) -> bool:
  return bounds[0] <= len(_words(after)) / max(len(_words(before)), 1) <= bounds[1]


def _quotes(before: str, after: str, most: float) -> bool:
  quotes = [one.text.casefold() for one in quotes_of(before) if len(_words(one.text)) > 1]
  copied = sum(one in after.casefold() for one in quotes)
  return copied <= most * len(quotes)


def _sentences(before: str, after: str, most: int) -> bool:
  fields = fields_of(after)
  listed = any(field.bullet for field in fields)
  return not listed and sum(len(sentences_of(after, field)) for field in fields) <= most


def _language(before: str, after: str, language: str) -> bool:
  words, common = _words(after), _data()["languages"]
  other = next(one for one in common if one != language)
  ours, theirs = (sum(word in common[one].split() for word in words) for one in (language, other))
  # Of a few items without any such word, nobody can tell: they must at least be others than before.
  return ours > theirs or (ours == theirs and _shared(after, before) < 0.5)


_CHECKS: dict[str, Callable[[str, str, Any], bool]] = {
  "items": _items,
  "moved": _moved,
  "overlap": _overlap,
  "kept": _kept,
  "length": _length,
  "quotes": _quotes,
  "sentences": _sentences,
  "language": _language,
}


def _words(text: str) -> list[str]:
  """The words of a text in small letters, without the labels of its lines."""
  return [w.casefold() for field in fields_of(text) for w in _WORD.findall(field.content.text)]


def _shared(a: str, b: str) -> float:
  """Share of the words of `a` that `b` has too, each as often as it is there."""
  mine, theirs = Counter(_words(a)), Counter(_words(b))
  return sum((mine & theirs).values()) / max(sum(mine.values()), 1)
