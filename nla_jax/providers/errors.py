"""What the client libraries raise, as what a person can do. Both are made by one generator, and name errors alike."""

import contextlib
from collections.abc import Iterator
from types import ModuleType

from nla_jax.errors import NLAError, first_line
from nla_jax.providers.request import GaveUpError

TRIES = 6  # of a request that a busy server refuses: the library waits as the server asks, or longer and longer
TIMEOUT = 300.0  # seconds


@contextlib.contextmanager
def told(library: ModuleType, key: str, model: str, address: str) -> Iterator[None]:
  """Turns a library's errors into GaveUpError for one request, or NLAError where none would be answered.

  Args:
    library: `openai` or `anthropic`.
    key: the variable that holds the key.
    model: that is asked.
    address: of the server.
  """
  try:
    yield
  except (library.AuthenticationError, library.PermissionDeniedError) as error:
    raise NLAError(
      f"{address} refuses the key in {key}: {first_line(error)}; set {key} to one that may use {model}"
    ) from error
  except library.NotFoundError as error:
    raise NLAError(
      f"{address} has no model {model}: {first_line(error)}; check the model's name"
    ) from error
  except library.BadRequestError as error:
    raise NLAError(f"{address} refuses the request: {first_line(error)}") from error
  except (library.APIConnectionError, library.APIStatusError) as error:
    raise GaveUpError(f"{type(error).__name__}: {first_line(error)}") from error
