"""What a person sees while a stage runs: a bar with rate and time left, and the curves of its metrics.

Where the output is no terminal, plain lines take the bar's place. Curves are JSON lines and TensorBoard event files.
"""

import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from nla_jax import bucket
from nla_jax.bucket import Place
from nla_jax.json_lines import JsonLines, read_lines
from nla_jax.parallel import distributed
from nla_jax.workdir import CURVE

LINE_SECONDS = 15.0
_BOARD = "tensorboard"


def say(text: str) -> None:
  """One line for the person who runs this, above any bar; by the first process."""
  if not distributed.is_first():
    return
  tqdm.write(text, file=sys.stderr)
  sys.stderr.flush()


class Progress:
  """A bar of `total` units. In a pipe or a log file: a line every 15 s with rate and time left."""

  def __init__(self, name: str, total: int, unit: str, done: int = 0):
    """Begins at `done` units, which were done before and do not count for the rate."""
    self._terminal = sys.stderr.isatty()
    self._bar = tqdm(
      total=total,
      initial=done,
      desc=name,
      unit=unit,
      dynamic_ncols=True,
      file=sys.stderr,
      disable=not (self._terminal and distributed.is_first()),
    )
    self.name, self.total, self.unit, self.done = name, total, unit, done

    self._start, self._first, self._last = time.time(), done, time.time()

  def advance(self, n: int = 1, **values) -> None:
    """Counts `n` units more; `values` are numbers to show beside the bar."""
    self.done += n

    # In a log file a bar would be thousands of lines.
    if self._terminal:
      self._bar.update(n)
      if values:
        shown = {key: f"{value:.3g}" for key, value in values.items()}
        self._bar.set_postfix(shown, refresh=False)
    elif time.time() - self._last > LINE_SECONDS or self.done >= self.total:
      self._last = time.time()
      self._say_line(values)

  def _say_line(self, values: dict) -> None:
    # The first step compiles, so the rate is the mean since the start, not the last step's.
    rate = (self.done - self._first) / max(time.time() - self._start, 1e-9)
    left = (self.total - self.done) / rate if rate else float("inf")

    shown = "".join(f"  {key} {value:.4g}" for key, value in values.items())
    counted = f"{self.done}/{self.total} {self.unit}"
    say(f"{self.name}: {counted}  {rate:.2f} {self.unit}/s  {left:.0f} s left{shown}")

  def close(self) -> None:
    """Takes the bar away."""
    self._bar.close()


def track(items: Iterable, name: str, unit: str, total: int | None = None) -> Iterator:
  """Yields `items` and shows a bar; `total` is their number where it cannot be counted."""
  items = list(items) if total is None else items
  progress = Progress(name, len(items) if total is None else total, unit)

  for item in items:
    yield item
    progress.advance()
  progress.close()


class StepLines:
  """A file of JSON lines, one or more a step, which a resumed run continues. Only the first process writes."""

  def __init__(self, path: Place, resume_step: int = 0):
    """Drops the lines of steps from `resume_step` on: the run that wrote them was stopped, and they come again."""
    self._lines = None
    if distributed.is_first():
      self._lines = JsonLines(path, keep=lambda line: line["step"] < resume_step)

  def write(self, step: int, **values) -> None:
    """Appends a line with the step and `values`, which are JSON values."""
    if self._lines is not None:
      self._lines.write({"step": step, **values})

  def sync(self) -> None:
    """Returns when all lines are where they belong."""
    if self._lines is not None:
      self._lines.sync()

  def close(self) -> None:
    """Closes the file."""
    if self._lines is not None:
      self._lines.close()


class MetricsLog:
  """Scalars by step: `metrics.jsonl` and, beside it, TensorBoard event files. Only the first process writes."""

  def __init__(self, folder: Place, resume_step: int = 0):
    """Continues the curve in `folder` at `resume_step`; later steps that are there are dropped."""
    self._lines = StepLines(folder / CURVE, resume_step)
    self._board = self._scratch = None
    if distributed.is_first():
      # Imported here: it imports torch where that is installed, which takes more than a second.
      from tensorboardX import SummaryWriter

      self._board_folder = folder / _BOARD
      self._board = SummaryWriter(str(self._written_to()), purge_step=resume_step)

  def _written_to(self) -> Path:
    """Where the event files are written: those of a bucket lie on this machine first."""
    if isinstance(self._board_folder, Path):
      return self._board_folder
    self._scratch = tempfile.TemporaryDirectory(prefix="nla_jax")
    return Path(self._scratch.name)

  def write(self, step: int, **values: float) -> None:
    """Appends one step's scalars."""
    self._lines.write(step, **{key: float(value) for key, value in values.items()})
    if self._board is not None:
      for key, value in values.items():
        self._board.add_scalar(key, float(value), step)

  def sync(self) -> None:
    """Returns when the curve is where it belongs."""
    self._lines.sync()
    if self._scratch is not None:
      self._board.flush()
      bucket.send(Path(self._scratch.name), self._board_folder)

  def close(self) -> None:
    """Closes the files."""
    self._lines.close()
    if self._board is not None:
      self._board.close()
    if self._scratch is not None:
      bucket.send(Path(self._scratch.name), self._board_folder)
      self._scratch.cleanup()


def read_metrics(folder: Place) -> list[dict]:
  """The curve that a stage wrote to `folder`: a dict a step; none where there is no curve."""
  return read_lines(folder / CURVE)
