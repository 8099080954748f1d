"""One explanation of one activation, with what the AR makes of it."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Claim:
  """One thing that an explanation says.

  Attributes:
    id: its number in the explanation, from 0.
    text: its words.
    span: (start, end), its characters in the explanation.
    field: the label of its line ("Next", "About", "Ends"); of prose what it is: "quote", "name", "number", "sentence".
    level: `theme`, `entity` or `detail`.
    verdict: whether the context supports it; None where nobody judged.
    related: whether a false claim is about something that the document holds; None where nobody judged.
    confidence: the probability that it is true, by a calibrated model of claims; None without one.
  """

  id: int
  text: str
  span: tuple[int, int]
  field: str
  level: str
  verdict: bool | None = None
  related: bool | None = None
  confidence: float | None = None


@dataclasses.dataclass(frozen=True)
class Explanation:
  """One explanation of one activation.

  Attributes:
    text: None where the AV's answer holds no explanation; `reason` says why.
    cosine: between the activation and its reconstruction from the text alone; None without a text.
    mse_nrm: 2(1 − cosine), in [0, 4]; None without a text.
    fve: 1 − mse_nrm / baseline variance; None where the baseline is not known, or without a text.
    answer: all that the AV wrote, with the tags.
    reason: why there is no text; None where there is one.
    claims: what the text claims, where a model of claims has looked at it; see `evaluation.claims`.
  """

  text: str | None
  cosine: float | None
  mse_nrm: float | None
  fve: float | None
  answer: str = ""
  reason: str | None = None
  claims: tuple[Claim, ...] = ()

  @property
  def error(self) -> float:
    """By which explanations are ordered, the best first: mse_nrm; infinite without a text, which is worse than any."""
    return math.inf if self.text is None else self.mse_nrm
