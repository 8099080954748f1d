"""What every training run has around its updates: resume, curve, bar, guard, checkpoints and an orderly stop.

  loop = Loop(session, steps, streams)
  state, values = loop.restore(state, values)
  for step in loop.remaining():
    state, metrics = update(state, next(stream))
    loop.record(step, metrics, shown)
    loop.end_step(step, state, values)
  loop.close()

A run that was stopped at any moment and is started again goes on from its newest checkpoint with the same batches, so
its numbers are those of an uninterrupted run, bit for bit.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nla_jax.bucket import Place
from nla_jax.parallel import distributed
from nla_jax.progress import MetricsLog, Progress, StepLines
from nla_jax.training.checkpoint import checkpoints_in, decode_loader, encode_loader
from nla_jax.training.optimizer import TrainState, check_guard
from nla_jax.workdir import CHECKPOINTS


@dataclasses.dataclass(frozen=True)
class Session:
  """Where a training run lives and how it reports.

  Attributes:
    name: shown beside the bar and in messages.
    folder: of the curve and the checkpoints.
    seed: of the batches and of every draw.
    checkpoint_every: updates.
    guard_limit: skipped updates in a row that stop the run.
    note_progress: called after each checkpoint.
    keep: checkpoints that are kept.
    snapshot_every: updates between two calls of `snapshot`; 0 is never.
    snapshot: called with a step and the parameters of its models, which it keeps.
  """

  name: str
  folder: Place
  seed: int
  checkpoint_every: int
  guard_limit: int
  note_progress: Callable[[], None]
  keep: int = 2
  snapshot_every: int = 0
  snapshot: Callable[[int, dict[str, Any]], None] = lambda step, params: None

  def snapshot_is_due(self, step: int, steps: int) -> bool:
    """Whether parameters are kept after so many of a run's updates; those of the last one are its result."""
    return bool(self.snapshot_every) and step % self.snapshot_every == 0 and step < steps


class Loop:
  """The steps of one session.

  Args:
    session: see `Session`.
    steps: of the whole run.
    streams: iterators over batches, whose positions are saved with the state.
  """

  def __init__(self, session: Session, steps: int, streams: Sequence):
    self.session, self.steps, self.start = session, steps, 0
    self._streams = streams
    self._checkpoints = checkpoints_in(session.folder / CHECKPOINTS, session.keep)
    self._log = self._progress = None
    self._lines: list[StepLines] = []
    self._begun, self._earlier = time.time(), 0.0

  def restore(self, states: Any, **values: float) -> tuple[Any, dict[str, float]]:
    """The newest checkpoint's states and plain values, or what is given where there is none; moves the streams.

    Args:
      states: a TrainState, or a dict that holds some: arrays in their layout.
      values: plain numbers that change from step to step, by name.
    """
    found = self._checkpoints.restore(states)
    if found is not None:
      states, saved = found
      self.start, self._earlier = saved["step"], saved.get("seconds", 0.0)
      values = {name: saved[name] for name in values}
      for stream, position in zip(self._streams, saved["loaders"], strict=True):
        stream.set_state(decode_loader(position, stream.get_state()))

    self._begun = time.time()
    # Only now: lines of steps after the checkpoint are dropped from the curve.
    self._log = MetricsLog(self.session.folder, self.start)
    self._progress = Progress(self.session.name, self.steps, "step", self.start)
    return states, values

  def lines(self, name: str) -> StepLines:
    """A file of lines beside the curve, which goes on where the run does; closed with the loop."""
    self._lines.append(StepLines(self.session.folder / name, self.start))
    return self._lines[-1]

  def remaining(self) -> range:
    """The steps that are still to be done."""
    return range(self.start, self.steps)

  @property
  def seconds(self) -> float:
    """Since the first step began, over all runs that the newest checkpoint stands on."""
    return self._earlier + time.time() - self._begun

  def record(self, step: int, metrics: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    """Writes a line of the curve, with the seconds since the start, and moves the bar, with `shown` beside it."""
    self._log.write(step, **metrics, seconds=self.seconds)
    self._progress.advance(**{name: float(value) for name, value in shown.items()})

  def end_step(self, step: int, states: Any, **values: float) -> None:
    """Checks the guard, then saves where it is time to, or where the run is to stop.

    Raises:
      NLAError: too many updates in a row were skipped.
      PreemptedError: the run is to stop, and was saved.
    """
    for what, state in _train_states(states, self.session.name).items():
      check_guard(state, self.session.guard_limit, what)

    # All processes ask at every step, so that all of them stop at the same one.
    stop = distributed.preempted()
    done = step + 1
    if (stop or done % self.session.checkpoint_every == 0) and done < self.steps:
      positions = [encode_loader(stream.get_state()) for stream in self._streams]
      saved = {"step": done, "seconds": self.seconds, **values, "loaders": positions}
      # Before the checkpoint: a run that goes on from it does not write these lines again.
      for log in (self._log, *self._lines):
        log.sync()
      self._checkpoints.save(done, states, saved)
      self.session.note_progress()

    if stop:
      self._checkpoints.close()
      # All have saved before one ends: a launcher may take the others away with it.
      distributed.wait(f"{self.session.name} stopped")
      raise distributed.PreemptedError(
        f"{self.session.name} stopped after step {done} of {self.steps}"
      )

  def close(self, **metrics: float) -> None:
    """Ends the run, with a last point of the curve where metrics are given."""
    if metrics:
      self._log.write(self.steps, **metrics, seconds=self.seconds)
    for log in (self._log, *self._lines):
      log.close()
    self._progress.close()
    self._checkpoints.close()


def _train_states(states: Any, name: str) -> dict[str, TrainState]:
  """The train states among `states`, by what a message calls them: `sft av`, or `rl (av)` where there are several."""
  if isinstance(states, TrainState):
    return {name: states}
  return {
    f"{name} ({key})": state for key, state in states.items() if isinstance(state, TrainState)
  }
