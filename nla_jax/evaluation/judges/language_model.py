"""P: a language model by provider, asked in words; its prompts are data (prompts.yaml).

An answer that does not parse counts as wrong, and a quotation that is not in the text makes a verdict unclear.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Protocol

import numpy as np
import yaml

from nla_jax.evaluation.judges.judge import CONTINUATION, LABEL, Frame, Grade, Judge, Question

_ANSWER = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL | re.IGNORECASE)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VERDICTS = ("yes", "no", "unclear")


class Asks(Protocol):
  """What answers prompts: `provider.Client`, or a recording of it."""

  def ask(self, prompts: Sequence[str]) -> list[str]:
    """The answer to each prompt."""
    ...


class LanguageModelJudge(Judge):
  """A judge that is asked in words.

  Args:
    client: what answers.
    name: as tables show it.
  """

  def __init__(self, client: Asks, name: str):
    self._client, self.name = client, name

  def scores(self, questions: Sequence[Question], frame: Frame = CONTINUATION) -> list[np.ndarray]:
    """1 for the option that it names and 0 for the others; NaN where it names none, zeros without a text.

    Of the frame it is read whether labels are asked for or what continues; it has a prompt for each.
    """
    prompt = _prompts()["label" if frame.before == LABEL.before else "choose"]
    spoken = [i for i, one in enumerate(questions) if (one.text or "").strip()]
    answers = self._client.ask([_asked(prompt, questions[i]) for i in spoken])

    # What has no text is not asked, and not paid for.
    found = [np.zeros(len(one.options)) for one in questions]
    for i, answer in zip(spoken, answers):
      found[i] = _chosen(answer, len(questions[i].options))
    return found

  def grade(self, rubric: str, fields: Mapping[str, str]) -> Grade:
    """Its verdict on a rubric, with a quotation that is in the fields."""
    return self.grades(rubric, [fields])[0]

  def grades(self, rubric: str, several: Sequence[Mapping[str, str]]) -> list[Grade]:
    """Its verdict on a rubric for each of several texts, which are asked together."""
    prompts = []
    for fields in several:
      said = "\n\n".join(f"<{name}>\n{text}\n</{name}>" for name, text in fields.items())
      prompts.append(_filled(_prompts()["grade"], rubric=rubric, fields=said))
    answers = self._client.ask(prompts)
    return [_graded(one, list(fields.values())) for one, fields in zip(answers, several)]


def _asked(prompt: str, question: Question) -> str:
  options = "\n".join(f"{_LETTERS[i]}. {one.strip()}" for i, one in enumerate(question.options))
  return _filled(prompt, text=question.text, options=options)


def _filled(prompt: str, **fields: str) -> str:
  """A prompt with its fields, each once: what stands in a text is not filled."""
  return re.sub(r"\{(\w+)\}", lambda found: fields.get(found[1], found[0]), prompt)


def _chosen(answer: str, options: int) -> np.ndarray:
  """Scores of the option whose letter is the answer."""
  # The last one: while it thinks, a model may weigh several.
  letters = [one.strip(" .)").upper() for one in _ANSWER.findall(answer)]
  if not letters or letters[-1] not in tuple(_LETTERS[:options]):
    return np.full(options, np.nan)
  return np.eye(options)[_LETTERS.index(letters[-1])]


def _graded(answer: str, texts: Sequence[str]) -> Grade:
  inside = _ANSWER.findall(answer)
  try:
    fields = json.loads(inside[-1] if inside else answer)
    verdict = str(fields["verdict"]).lower()
    evidence, reasoning = str(fields.get("evidence", "")), str(fields.get("reasoning", ""))
  except (ValueError, KeyError, TypeError, AttributeError):
    return Grade("unclear", "", answer)

  # A quotation that nobody wrote is no evidence, and neither is the verdict that rests on it.
  if verdict not in _VERDICTS or (evidence and not any(evidence in text for text in texts)):
    return Grade("unclear", "", reasoning)
  return Grade(verdict, evidence, reasoning)


@functools.cache
def _prompts() -> dict[str, str]:
  file = resources.files("nla_jax.evaluation.judges") / "prompts.yaml"
  return yaml.safe_load(file.read_text(encoding="utf-8"))
