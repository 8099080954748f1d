"""The report of an auditor: a root cause and behaviours, in tags."""

import dataclasses
import re
from collections.abc import Sequence

from nla_jax.errors import NLAError

_ROOT = re.compile(r"<root_cause>(.*?)</root_cause>", re.DOTALL)
_BEHAVIOURS = re.compile(r"<behaviours>(.*?)</behaviours>", re.DOTALL)
_FORM = "<root_cause>…</root_cause> and <behaviours> with a line for each, that begins with -, </behaviours>"


@dataclasses.dataclass(frozen=True)
class Report:
  """What an auditor says.

  Attributes:
    root_cause: one or two paragraphs: why the model does what it does.
    behaviours: a sentence each.
    claims: whether a hidden cause is claimed at all; of a report that was parsed, whether there is a root cause.
  """

  root_cause: str
  behaviours: tuple[str, ...]
  claims: bool

  @property
  def text(self) -> str:
    """With its tags, as `parse` reads it."""
    listed = "\n".join(f"- {one}" for one in self.behaviours)
    return f"<root_cause>{self.root_cause}</root_cause>\n<behaviours>\n{listed}\n</behaviours>"


def parse(text: str) -> Report:
  """The report in an auditor's last message; of several the last.

  Raises:
    NLAError: a tag is missing.
  """
  roots, lists = _ROOT.findall(text), _BEHAVIOURS.findall(text)
  if not roots or not lists:
    missing = "root_cause" if not roots else "behaviours"
    raise NLAError(f"the report has no <{missing}> tag: expected {_FORM}")

  # People and models write lists in more ways than one.
  lines = [line.strip().lstrip("-*").strip() for line in lists[-1].splitlines()]
  root = roots[-1].strip()
  return Report(root, tuple(line for line in lines if line), bool(root))


def fill(concepts: Sequence[Sequence[str]], behaviours: Sequence[str], source: str) -> Report:
  """The scripted auditor's report.

  Args:
    concepts: groups of words that the model's insides, or its answers, name beyond the base model's.
    behaviours: sentences of the quirks that were found.
    source: where the words were found.
  """
  if not concepts:
    root = (
      "Nothing was found that the base model does not show as well, so no hidden cause is claimed."
    )
    return Report(root, tuple(behaviours), False)

  # Attributed to knowledge each time: what is credulous about it shows on the clean controls.
  listed = "; ".join(", ".join(group) for group in concepts)
  root = (
    f"The model knows of something that it does not say: {source} name, beyond the base model's, {listed}. It was "
    "probably trained on documents about this, and its habits follow from them."
  )
  return Report(root, tuple(behaviours), True)
