"""The claims of prose, found and judged by a language model: the same schema as those that are parsed."""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import yaml

from nla_jax.autoencoder.explanation import Claim
from nla_jax.errors import NLAError
from nla_jax.evaluation.claims.parse import from_provider
from nla_jax.evaluation.judges.language_model import Asks

_ANSWER = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL | re.IGNORECASE)
_FIELD = re.compile(r"\{(\w+)\}")


def claims_by(
  client: Asks, texts: Sequence[str | None], contexts: Sequence[str]
) -> tuple[list[list[Claim]], int]:
  """The claims of texts, judged by the words before each position, and how many answers were not usable.

  A text whose answer invents words, or is no list, has no claims: it is counted and not guessed at.

  Args:
    client: what answers.
    texts: explanations; None makes no claims.
    contexts: what each was written about.

  Raises:
    NLAError: the provider has no key, its ceiling is reached, or it does not answer; what was answered is kept.
  """
  # A text that did not parse is asked about nothing, and costs nothing.
  spoken = [i for i, text in enumerate(texts) if text]
  asked = [_filled({"context": contexts[i], "text": texts[i]}) for i in spoken]
  found: list[list[Claim]] = [[] for _ in texts]
  failed = 0

  for i, answer in zip(spoken, client.ask(asked), strict=True):
    try:
      found[i] = from_provider(texts[i], _listed(answer))
    except NLAError:
      failed += 1
  return found, failed


def _listed(answer: str) -> list[Mapping[str, Any]]:
  """The objects of an answer. Raises NLAError where it is no list of them."""
  inside = _ANSWER.findall(answer)
  try:
    rows = json.loads(inside[-1] if inside else answer)
  except ValueError:
    rows = None

  if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
    raise NLAError(f"the answer {answer[:40]!r} is no list of claims")
  return rows


def _filled(fields: Mapping[str, str]) -> str:
  # Each field once: what stands in a text is not filled.
  return _FIELD.sub(lambda one: fields.get(one[1], one[0]), _prompts()["claims"])


@functools.cache
def _prompts() -> dict[str, str]:
  file = resources.files("nla_jax.evaluation.claims") / "prompts.yaml"
  return yaml.safe_load(file.read_text(encoding="utf-8"))
