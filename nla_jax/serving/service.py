"""What the handlers share: the pair, the device's thread, the limits, and how many requests are worked on."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from nla_jax.autoencoder.nla import Explanation
from nla_jax.conversation.tokens import Tokens
from nla_jax.serving.device import Device, Partial, Work
from nla_jax.serving.limits import Limits, RefusedError
from nla_jax.serving.reader import Draw, Reader, Row


class Service:
  """A pair that is served.

  Attributes:
    reader: the pair.
    limits: of requests.
    secret: that callers have to send; None where none is asked for.
    device: the thread that computes.
  """

  def __init__(self, reader: Reader, limits: Limits, secret: str | None = None):
    self.reader, self.limits, self.secret = reader, limits, secret
    self.device = Device(reader.explain, limits.rows)
    # Tokenizers are not safe in two threads, so words have one thread and a tokenizer of their own.
    self._words = ThreadPoolExecutor(1, "words")
    self._inside = 0

  @property
  def inside(self) -> int:
    """Requests that are worked on."""
    return self._inside

  def enter(self) -> None:
    """Takes a place. Raises RefusedError where all are taken."""
    if self._inside >= self.limits.concurrent:
      raise RefusedError(
        429, f"all {self.limits.concurrent} places of this server are taken: send it again shortly"
      )
    self._inside += 1

  def leave(self) -> None:
    """Gives a place back."""
    self._inside -= 1

  def close(self, seconds: float = 60.0) -> bool:
    """Finishes what the device has; whether it is done within `seconds`."""
    self._words.shutdown(wait=False)
    return self.device.close(seconds)

  async def tokens(self, what: Any, **options: Any) -> Tokens:
    """See `Reader.tokens`."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(self._words, lambda: self.reader.tokens(what, **options))

  async def activations(self, ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    """The target's activations [n, d_model] at tokens of a text."""
    return await self.device.call(lambda: self.reader.activations(ids, positions))

  async def explain(self, rows: Sequence[Row], draw: Draw) -> list[Explanation]:
    """An explanation of each row."""
    found: list[Any] = [None] * len(rows)
    async for row, one in self.device.submit(Work(draw, rows)).results():
      found[row] = one
    return found

  def explaining(
    self, rows: Sequence[Row], draw: Draw
  ) -> AsyncIterator[tuple[int, Partial | Explanation]]:
    """What is written of each row, as it comes, and then its explanation."""
    return self.device.submit(Work(draw, rows, watched=True)).results()

  def status(self) -> dict[str, Any]:
    """What `GET /` answers."""
    limits = self.limits
    sizes = {
      "max_input_chars": limits.input_chars,
      "max_positions_per_request": limits.positions,
      "max_new_tokens": limits.new_tokens,
      "max_describe_batch": limits.describe_batch,
      "max_description_chars": limits.description_chars,
      "max_completion_tokens": limits.completion_tokens,
      "max_samples": limits.samples,
      "max_best_of": limits.best_of,
    }
    # This API counts places by what they are for; here all paths share them.
    places = ("max_concurrent", "max_concurrent_explains", "max_describe_requests")
    places += ("source_max_concurrent", "reconstructor_max_concurrent")

    facts = {"status": "ok", **self.reader.facts(), "in_progress": self._inside, "limits": sizes}
    return {**facts, **dict.fromkeys(places, limits.concurrent)}
