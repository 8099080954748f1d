"""What a suite is: one claim about a subject, measured by one module under `suites/`.

A module there holds `SUITE = Suite(run, …)`; the quantities that it measures name it in `nla_jax.quantities.TABLE`.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nla_jax import quantities
from nla_jax.errors import NLAError
from nla_jax.evaluation.subject import Subject

ALWAYS = "reconstruction"  # what every control is compared with
_PACKAGE = "nla_jax.evaluation.suites"


class Measured(NamedTuple):
  """What a suite found; empty where the subject lacks what it needs.

  Attributes:
    errors: mse_nrm [n] of each row, by key of the quantity: FVE, intervals and cosines are made of them.
    numbers: further numbers by key of the quantity.
    texts: explanations [n] that the report shows with its examples, by key of the quantity.
    by_n: mse_nrm of the first rows when the best of n explanations is kept, by n and key of the quantity.
  """

  errors: dict[str, np.ndarray]
  numbers: dict[str, Any] = {}  # noqa: RUF012 - never changed
  texts: dict[str, Sequence[str | None]] = {}  # noqa: RUF012
  by_n: dict[int, dict[str, np.ndarray]] = {}  # noqa: RUF012


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


def load_suites(names: Sequence[str] | None = None) -> list[Suite]:
  """Loads suites by name: `reconstruction` first, then those named; where None, all that the table names.

  Raises:
    NLAError: there is no suite of that name.
  """
  # Modules are loaded by name, so that a new one is a file and a line of the table.
  wanted = dict.fromkeys((ALWAYS, *(quantities.suites() if names is None else names)))
  known = quantities.suites()
  if missing := [name for name in wanted if name not in known]:
    raise NLAError(f"there is no suite {', '.join(missing)}; expected some of {', '.join(known)}")
  return [importlib.import_module(f"{_PACKAGE}.{name}").SUITE for name in wanted]
