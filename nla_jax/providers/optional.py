"""Packages of the extra `api`, loaded when they are first needed."""

import importlib
from types import ModuleType

from nla_jax.errors import NLAError


def need(module: str, package: str, what: str) -> ModuleType:
  """A module of an optional package. Raises NLAError where it is not installed: `what` says what it is for."""
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise NLAError(
      f"{what} needs the Python package {package}, which is not installed: pip install 'nla_jax[api]'"
    ) from error
