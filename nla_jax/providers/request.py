"""What a language model is asked, and what came back."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Request(NamedTuple):
  """One question.

  Attributes:
    prompt: the user's turn.
    system: what stands before it; may be empty.
    max_tokens: of the answer.
    temperature: of sampling; 0 is greedy.
  """

  prompt: str
  system: str = ""
  max_tokens: int = 512
  temperature: float = 1.0

  def digest(self, model: str) -> str:
    """Names the request to a model: the same question has the same digest, and is paid for once."""
    content = json.dumps([model, *self], ensure_ascii=False)
    return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:24]


class Answer(NamedTuple):
  """What came back.

  Attributes:
    text: of the answer; None where the model gave none (a refusal, a filter).
    input_tokens: as the provider counts them for its bill.
    output_tokens: likewise.
  """

  text: str | None
  input_tokens: int
  output_tokens: int


class Batch(NamedTuple):
  """A batch at a provider.

  Attributes:
    done: whether every request in it is answered, or given up.
    answers: by the request's digest; only of a batch that is done.
  """

  done: bool
  answers: dict[str, Answer]


class Provider(Protocol):
  """A model that somebody serves.

  Attributes:
    name: `openai` or `anthropic`.
    model: its name there.
  """

  name: str
  model: str

  def ask(self, request: Request) -> Answer:
    """One answer; the client library waits and tries again where the server is busy.

    Raises:
      GaveUpError: this request got no answer after all tries.
      NLAError: no request will get one: the key, the model's name, or the address is wrong.
    """

  def send_batch(self, requests: Sequence[tuple[str, Request]]) -> str:
    """Begins a batch of (digest, request); returns the provider's name for it. Raises NLAError as `ask`."""

  def poll_batch(self, batch: str) -> Batch:
    """How far a batch is. Raises NLAError as `ask`."""


class GaveUpError(Exception):
  """A request that got no answer after all tries."""
