"""One thread that computes, and a queue in front of it.

Requests hand in rows to explain, or one call that stands alone. The thread takes the oldest request, and with it rows
of other requests of its kind, in turn, until a batch is full: a request of one row does not wait for one of hundreds.
What it finds is posted to the event loop, where only the newest text of each row is kept, so that a client that reads
slowly costs no memory.
"""

import asyncio
import dataclasses
import threading
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from typing import Any

from nla_jax.errors import NLAError
from nla_jax.serving.limits import RefusedError

Watch = Callable[[int, str], None]
Show = Callable[[Any], None]
# From rows, their kind and a watcher of (row, its answer so far) to one result a row.
Compute = Callable[[Sequence[Any], Hashable, Watch], Sequence[Any]]


class AbandonedError(Exception):
  """Nobody waits for this batch any more."""


@dataclasses.dataclass(frozen=True)
class Partial:
  """What has been written so far: of a row's answer its text, of a continuation its token ids."""

  text: Any


class Work:
  """What one request asks of the device.

  Attributes:
    kind: of its rows; None of a call that stands alone.
    rows: what is computed, one result each.
    left: indices of rows that are not taken yet.
    abandoned: whether its client is gone.
  """

  def __init__(self, kind: Hashable, rows: Sequence[Any], watched: bool = False):
    self.kind, self.rows, self.watched = kind, rows, watched
    self.left, self.abandoned = deque(range(len(rows))), False
    self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
    self._pending: dict[int, Any] = {}

  def post(self, row: int, found: Any) -> None:
    """Hands a result, a `Partial` or an exception to the event loop; called by the device's thread."""
    try:
      self._loop.call_soon_threadsafe(self._take, row, found)
    except RuntimeError:
      # The loop is closed: the server has ended, and nobody waits.
      self.abandoned = True

  def _take(self, row: int, found: Any) -> None:
    self._pending[row] = found
    self._news.set()

  async def results(self) -> AsyncIterator[tuple[int, Any]]:
    """(row, result) in the order in which they come, with `Partial`s between them where it is watched.

    Raises:
      NLAError: what the computation raised, in its own words.
    """
    waiting = len(self.rows)
    try:
      while waiting:
        await self._news.wait()
        self._news.clear()
        news, self._pending = self._pending, {}
        for row, found in news.items():
          if isinstance(found, BaseException):
            raise found
          waiting -= not isinstance(found, Partial)
          yield row, found
    finally:
      self.abandoned = True


class Device:
  """The thread, and what waits for it.

  Attributes:
    compute: explains rows of one kind.
    rows: of a batch, at most.
  """

  def __init__(self, compute: Compute, rows: int):
    self.compute, self.rows = compute, rows
    self._queue: deque[Work] = deque()
    self._changed, self._closing = threading.Condition(), False
    self._thread = threading.Thread(target=self._run, name="device", daemon=True)
    self._thread.start()

  def submit(self, work: Work) -> Work:
    """Puts work at the end of the queue. Raises RefusedError where the server is going down."""
    with self._changed:
      if self._closing:
        raise RefusedError(503, "this server is shutting down: send the request again in a while")
      self._queue.append(work)
      self._changed.notify()
    return work

  async def call(self, function: Callable[[], Any]) -> Any:
    """What a function returns that is run alone in the device's thread."""
    async for _, found in self.watched(lambda show: function()):
      return found

  def watched(self, function: Callable[[Show], Any]) -> AsyncIterator[tuple[int, Any]]:
    """What a function shows that is run alone in the device's thread, as `Partial`s, and then what it returns."""
    return self.submit(Work(None, [function], watched=True)).results()

  @property
  def waiting(self) -> int:
    """Requests in the queue."""
    return len(self._queue)

  def close(self, seconds: float) -> bool:
    """Computes what is in the queue, then ends the thread; whether it has ended within `seconds`."""
    with self._changed:
      self._closing = True
      self._changed.notify()
    self._thread.join(seconds)
    return not self._thread.is_alive()

  def _run(self) -> None:
    while (batch := self._next()) is not None:
      _compute(batch, self.compute)

  def _next(self) -> list[tuple[Work, int]] | None:
    """Rows of one kind, or one call; None when there is nothing more to do."""
    with self._changed:
      while True:
        # Work whose client is gone frees its place without being computed.
        self._queue = deque(one for one in self._queue if not one.abandoned)
        if self._queue:
          return self._take()
        if self._closing:
          return None
        self._changed.wait()

  def _take(self) -> list[tuple[Work, int]]:
    kind = self._queue[0].kind
    if kind is None:
      return [(self._queue.popleft(), 0)]

    # One row of each request in turn, so that all of one kind go on together.
    together, batch = [one for one in self._queue if one.kind == kind], []
    while len(batch) < self.rows and any(one.left for one in together):
      for one in together:
        if one.left and len(batch) < self.rows:
          batch.append((one, one.left.popleft()))

    # What is not done goes behind what waits, so that no other kind starves.
    unfinished = [one for one in together if one.left]
    self._queue = deque(one for one in self._queue if one not in together)
    self._queue.extend(unfinished)
    return batch


def _compute(batch: list[tuple[Work, int]], compute: Compute) -> None:
  """Computes a batch and posts what was found, or why nothing was."""
  try:
    found = _results(batch, compute)
  except AbandonedError:
    return
  except Exception as error:
    members = list(dict.fromkeys(work for work, _ in batch))
    if len(members) > 1:
      # One request's row may be at fault, and the others shall not pay for it.
      for member in members:
        _compute([(work, row) for work, row in batch if work is member], compute)
      return
    if not isinstance(error, NLAError):
      traceback.print_exception(error)
    members[0].post(batch[0][1], error)
    return
  for (work, row), one in zip(batch, found, strict=True):
    work.post(row, one)


def _results(batch: list[tuple[Work, int]], compute: Compute) -> Sequence[Any]:
  def watch(i: int, text: Any) -> None:
    if all(work.abandoned for work, _ in batch):
      raise AbandonedError
    work, row = batch[i]
    if work.watched and not work.abandoned:
      work.post(row, Partial(text))

  first, row = batch[0]
  if first.kind is None:
    return [first.rows[row](lambda found: watch(0, found))]
  return compute([work.rows[row] for work, row in batch], first.kind, watch)
