"""What a suite is: one claim about a subject, measured by one module under `suites/`.

A module there holds `SUITE = Suite(run, …)`. There are two kinds. One measures quantities of every row: the
lines of `nla_jax.quantities.TABLE` name it, and `nla eval` runs it. The other answers a question with a `Finding`, a
table of its own: a line of `QUESTIONS` names it, and it runs when it is asked for (`nla eval --suites=…`).
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nla_jax import quantities
from nla_jax.errors import NLAError
from nla_jax.evaluation.findings import Finding
from nla_jax.evaluation.subject import Subject

ALWAYS = "reconstruction"  # what every control is compared with
_PACKAGE = "nla_jax.evaluation.suites"
# Suites that answer a question, one a line, in the order of the report.
# fmt: off
QUESTIONS: tuple[str, ...] = (
  "suffix_prediction",
  "classification",
  "user_modelling",
  "hints",
  "sandbagging",
  "steganography",
  "confabulation",
  "writing",
)
# fmt: on


class LeftOutError(NLAError):
  """A suite lacks something to measure with; the others run without it."""


class Measured(NamedTuple):
  """What a suite found; empty where the subject lacks what it needs.

  Attributes:
    errors: mse_nrm [n] of each row, by key of the quantity: FVE, intervals and cosines are made of them.
    numbers: further numbers by key of the quantity.
    texts: explanations [n] that the report shows with its examples, by key of the quantity.
    by_n: mse_nrm of the first rows when the best of n explanations is kept, by n and key of the quantity.
    findings: answers to questions, by name of the suite.
  """

  errors: dict[str, np.ndarray]
  numbers: dict[str, Any] = {}  # noqa: RUF012 - never changed
  texts: dict[str, Sequence[str | None]] = {}  # noqa: RUF012
  by_n: dict[int, dict[str, np.ndarray]] = {}  # noqa: RUF012
  findings: dict[str, Finding] = {}  # noqa: RUF012


def _no_explanations(subject: Subject) -> int:
  return 0


class Suite(NamedTuple):
  """A suite.

  Attributes:
    run: measures a subject.
    explanations: how many explanations `run` samples, for the progress bar.
  """

  run: Callable[[Subject], Measured]
  explanations: Callable[[Subject], int] = _no_explanations


def suite_names(names: Sequence[str] | None = None) -> tuple[str, ...]:
  """Names of the suites that run: `reconstruction` first, then those named; where None, all that the table names.

  Raises:
    NLAError: there is no suite of that name.
  """
  known = (*quantities.suites(), *QUESTIONS)
  if missing := [name for name in names or () if name not in known]:
    raise NLAError(f"there is no suite {', '.join(missing)}; expected some of {', '.join(known)}")
  return tuple(dict.fromkeys((ALWAYS, *(quantities.suites() if names is None else names))))


def load_suites(names: Sequence[str] | None = None) -> list[Suite]:
  """Loads the suites of `suite_names`, in its order. Raises NLAError as it does."""
  return [load_suite(name) for name in suite_names(names)]


def load_suite(name: str) -> Suite:
  """Loads one suite."""
  # Modules are loaded by name, so that a new one is a file and a line of a table.
  return importlib.import_module(f"{_PACKAGE}.{name}").SUITE
