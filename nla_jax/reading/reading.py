"""What a pair read in one text or conversation."""

import dataclasses
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from nla_jax import files
from nla_jax.autoencoder.explanation import Claim, Explanation
from nla_jax.conversation.tokens import Tokens
from nla_jax.errors import NLAError
from nla_jax.reading import form

FORMAT = "nla_jax reading 1"
_WORD = re.compile(r"\w+", re.UNICODE)


@dataclasses.dataclass(frozen=True)
class Reading:
  """Explanations at tokens of one input. As a sequence it is the best explanation of each position.

  Attributes:
    tokens: of the whole input, each with its words, role, message and section.
    positions: indices of the tokens that were read.
    samples: of each position its explanations, the one that the AR rebuilds best first.
    norms: of the activations.
    best_of: of how many draws each explanation is the best, by the AR that scores it: n draws raise its FVE.
    layer: K, 0-based; the output of block K was read.
    baseline: variance of normalised activations that FVE is measured against; None where it is not known.
    model: name of the target.
  """

  tokens: Tokens
  positions: list[int]
  samples: list[list[Explanation]]
  norms: list[float]
  best_of: int
  layer: int
  baseline: float | None = None
  model: str = ""

  def __len__(self) -> int:
    return len(self.positions)

  def __getitem__(self, i: int) -> Explanation:
    return self.samples[i][0]

  def __iter__(self) -> Iterator[Explanation]:
    return (samples[0] for samples in self.samples)

  def word(self, i: int) -> str:
    """The characters of the i-th position's token."""
    return self.tokens.word(self.positions[i])

  def agreement(self, i: int) -> float | None:
    """How much the samples of the i-th position agree: of each two the share of words in common, on average.

    Words in common over words in either (Jaccard), in [0, 1]. None where fewer than two samples hold a text.
    """
    words = [_words(one.text) for one in self.samples[i] if one.text is not None]
    pairs = [(a, b) for a, b in itertools.combinations(words, 2) if a | b]
    return sum(len(a & b) / len(a | b) for a, b in pairs) / len(pairs) if pairs else None

  def shared_words(self, i: int) -> list[str]:
    """Words that more than half of the i-th position's samples have, the commonest first; of two samples or more."""
    words = [_words(one.text) for one in self.samples[i] if one.text is not None]
    counts = Counter(word for one in words for word in sorted(one))
    return (
      [word for word, n in counts.most_common() if 2 * n > len(words)] if len(words) > 1 else []
    )

  def to_json(self) -> dict[str, Any]:
    """All of it as objects, lists, strings and numbers; `from_json` reads it back."""
    return {
      "format": FORMAT,
      **{name: getattr(self, name) for name in ("model", "layer", "baseline", "best_of")},
      "tokens": dataclasses.asdict(self.tokens),
      "positions": [self.row(i) for i in range(len(self))],
    }

  def row(self, i: int) -> dict[str, Any]:
    """The i-th position as objects, lists, strings and numbers."""
    position = self.positions[i]
    return {
      "position": position,
      "token": self.word(i),
      "role": self.tokens.roles[position],
      "message": self.tokens.messages[position],
      "section": self.tokens.sections[position],
      "norm": self.norms[i],
      "agreement": self.agreement(i),
      "shared_words": self.shared_words(i),
      "samples": [_sample(one) for one in self.samples[i]],
    }

  @classmethod
  def from_json(cls, found: Any) -> "Reading":
    """The reading that `to_json` wrote. Raises NLAError where it is none."""
    if not isinstance(found, dict) or found.get("format") != FORMAT:
      raise NLAError(f"this is no reading: expected the object that Reading.save wrote, {FORMAT!r}")
    try:
      rows = found["positions"]
      return cls(
        tokens=Tokens(**found["tokens"]),
        positions=[row["position"] for row in rows],
        samples=[[_explanation(one) for one in row["samples"]] for row in rows],
        norms=[row["norm"] for row in rows],
        **{name: found[name] for name in ("model", "layer", "baseline", "best_of")},
      )
    except (KeyError, TypeError) as error:
      raise NLAError(f"this reading is damaged: {error}; save it again") from error

  def save(self, path: str | os.PathLike) -> None:
    """Writes the reading to a file of JSON."""
    files.write_json(files.here(path), self.to_json())

  @classmethod
  def load(cls, path: str | os.PathLike) -> "Reading":
    """The reading in a file. Raises NLAError where there is none."""
    found = files.read_json(files.here(path))
    if found is None:
      raise NLAError(
        f"{os.fspath(path)}: there is no such file; expected one that Reading.save wrote"
      )
    return cls.from_json(found)

  def to_dataframe(self):
    """A pandas table with a row for each explanation. Raises NLAError where pandas is not installed."""
    try:
      import pandas
    except ImportError as error:
      raise NLAError("a table needs pandas: pip install pandas; or take to_json()") from error

    rows = []
    for i, row in enumerate(self.to_json()["positions"]):
      shared = {key: value for key, value in row.items() if key not in ("samples", "shared_words")}
      for number, one in enumerate(self.samples[i]):
        rows.append(shared | {"sample": number} | _sample(one))
    return pandas.DataFrame(rows)

  def __str__(self) -> str:
    return form.table(self)

  def _repr_html_(self) -> str:
    return form.html(self)


def _sample(one: Explanation) -> dict[str, Any]:
  found = dataclasses.asdict(one)
  # Most readings have no model of claims, and their files stay as they were.
  if not found["claims"]:
    del found["claims"]
  return found


def _explanation(found: dict[str, Any]) -> Explanation:
  claims = tuple(Claim(**{**one, "span": tuple(one["span"])}) for one in found.get("claims", ()))
  return Explanation(**{**found, "claims": claims})


def _words(text: str) -> set[str]:
  return {word.casefold() for word in _WORD.findall(text)}
