"""What a request may cost, and how one that is refused is answered: one status and one sentence."""

import dataclasses
import json
from typing import Any, NoReturn

from nla_jax.errors import NLAError


class RefusedError(NLAError):
  """A request that is refused.

  Attributes:
    status: of HTTP.
    field: of the body that is wrong, where one is.
  """

  def __init__(self, status: int, sentence: str, field: str | None = None):
    self.status, self.field = status, field
    super().__init__(sentence)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """The largest sizes that are served. What a client can make the server hold or compute has one of them.

  Attributes:
    body_bytes: of a request, counted while it comes in, before it is parsed.
    body_seconds: that a client may take to send it.
    input_chars: of a text, or of all messages together.
    messages: of a conversation.
    positions: explained in one request.
    new_tokens: of an explanation.
    completion_tokens: of a continuation of the target.
    describe_batch: activations of one request.
    description_chars: of a text that the AR reads.
    samples: explanations of one position.
    best_of: draws of which one explanation is chosen.
    strengths: at which one request steers.
    draws: of one request: positions times samples times best_of.
    concurrent: requests that are worked on at once; the next one is refused.
    rows: explanations that are sampled in one batch.
    request_seconds: of a whole request, the wait for others included.
  """

  body_bytes: int = 64 * 2**20
  body_seconds: float = 30.0
  input_chars: int = 65_536
  messages: int = 1024
  positions: int = 512
  new_tokens: int = 512
  completion_tokens: int = 512
  describe_batch: int = 512
  description_chars: int = 8192
  samples: int = 16
  best_of: int = 16
  strengths: int = 8
  draws: int = 2048
  concurrent: int = 8
  rows: int = 64
  request_seconds: float = 900.0

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      if not value > 0:
        raise NLAError(f"{name}={value}: a limit of the server has to be more than 0")


def parse(body: bytes) -> dict[str, Any]:
  """The JSON object of a body.

  Raises:
    RefusedError: it is none; NaN and infinity, which JSON has not, are refused with it.
  """
  try:
    found = json.loads(body, parse_constant=_no_number)
  except RefusedError:
    raise
  # A number of thousands of digits is a ValueError too; nesting of thousands of brackets ends the recursion.
  except (ValueError, RecursionError) as error:
    reason = " ".join(str(error).split())[:120]
    raise RefusedError(
      400, f"the body is not JSON ({reason}): send one JSON object in UTF-8"
    ) from error
  if not isinstance(found, dict):
    raise RefusedError(
      400, f"the body is a JSON {type(found).__name__}: send one JSON object, such as {{}}"
    )
  return found


def _no_number(name: str) -> NoReturn:
  raise RefusedError(400, f"the body holds {name}: every number has to be finite")
