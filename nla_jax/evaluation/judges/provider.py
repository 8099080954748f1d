"""A judge behind an API: a YAML file says who is asked and for how much; `nla_jax.providers` asks, keeps and counts.

Answers are kept in the file's folder under what was asked, so that an evaluation that was stopped, or whose provider
failed, goes on from there, and a ceiling holds over all evaluations that share the folder.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from nla_jax import files
from nla_jax.bucket import place
from nla_jax.errors import NLAError, first_line
from nla_jax.parallel import distributed
from nla_jax.providers.client import Terms, complete
from nla_jax.providers.find import known_price, open_provider
from nla_jax.providers.journal import Journal
from nla_jax.providers.request import Request
from nla_jax.workdir import JOURNAL


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provider:
  """Who is asked, and for how much.

  Attributes:
    model: its name there.
    ceiling: US dollars, for all answers in the folder together.
    folder: where answers are kept.
    provider: `openai`, or any server with its interface, or `anthropic`.
    url: of another server than the vendor's own.
    price: US dollars a million tokens (input, output), where genai-prices does not know the model.
    max_tokens: of an answer.
    parallel: requests at once.
    batch: by the batch endpoint, at half the price and within a day.
  """

  model: str
  ceiling: float
  folder: str
  provider: str = "openai"
  url: str = ""
  price: Sequence[float] = ()
  max_tokens: int = 400
  parallel: int = 8
  batch: bool = False


_KINDS = {str: str, float: (int, float), int: int, bool: bool, Sequence[float]: list}


def read_provider(path: str | Path) -> Provider:
  """Reads a provider from a YAML file with the fields of `Provider`.

  Raises:
    NLAError: there is no such file, or a field is missing, unknown or of another type.
  """
  found = files.expect_file(path, "the file of the judge", "name one in config.suites.judge")
  try:
    fields = yaml.safe_load(Path(found).read_text(encoding="utf-8"))
  except (yaml.YAMLError, UnicodeDecodeError) as error:
    raise NLAError(f"{path} is no YAML ({first_line(error)})") from None
  given = fields if isinstance(fields, dict) else {}
  _refuse_fields(path, given)
  if given["ceiling"] <= 0:
    raise NLAError(f"{path}: the ceiling is {given['ceiling']}; expected US dollars above 0")
  return Provider(**given)


def _refuse_fields(path: str | Path, given: dict[str, Any]) -> None:
  """Raises NLAError where a field is missing, unknown or of another type."""
  known = {one.name: one for one in dataclasses.fields(Provider)}
  needed = [name for name, one in known.items() if one.default is dataclasses.MISSING]
  missing = [name for name in needed if name not in given]
  strange = [str(name) for name in given if name not in known]
  if missing or strange:
    wrong = f"{', '.join(missing)} missing" if missing else f"{', '.join(strange)} unknown"
    raise NLAError(f"{path}: {wrong}; expected {', '.join(known)}")

  for name, value in given.items():
    kind = known[name].type
    # True and False are whole numbers to Python.
    if not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind is not bool):
      expected = getattr(kind, "__name__", str(kind))
      raise NLAError(f"{path}: {name} is {value!r}, and a {expected} is expected")


class Client:
  """Asks a provider at temperature 0, and remembers.

  Args:
    provider: who is asked.

  Raises:
    NLAError: there is no key, no such provider, a price is not known, or there are several processes, each of which
      would pay.
  """

  def __init__(self, provider: Provider):
    if distributed.process()[1] > 1:
      raise NLAError(
        f"the judge {provider.model} is asked from one process: run `nla eval --suites=…` on one machine"
      )
    p = self.provider = provider
    self._asked = open_provider(p.provider, p.model, p.url)
    price = known_price(p.provider, p.model, p.url, tuple(p.price), "price: [input, output]")
    self._terms = Terms(price, p.ceiling, p.parallel, p.batch, "`ceiling` in the judge's file")
    self._journal = Journal(place(files.here(p.folder)) / JOURNAL)

  @property
  def spent(self) -> float:
    """US dollars of all answers in the folder."""
    return self._journal.spent.dollars

  def ask(self, prompts: Sequence[str]) -> list[str]:
    """The answer to each prompt, from the folder where it was asked before; empty where the model gave none.

    Raises:
      NLAError: the key is refused, the ceiling is reached, or a request got no answer. What came before is kept.
    """
    requests = [
      Request(prompt, max_tokens=self.provider.max_tokens, temperature=0.0) for prompt in prompts
    ]
    answers = complete(self._asked, requests, self._journal, self._terms, "judge")
    unanswered = [
      one
      for one, answer in zip(requests, answers, strict=True)
      if answer is None and self._journal.find(one.digest(self.provider.model)) is None
    ]
    if unanswered:
      raise NLAError(
        f"the judge {self.provider.model} did not answer {len(unanswered)} of {len(requests)} requests; run the same "
        "command again, what was answered is kept"
      )
    return [answer or "" for answer in answers]
