"""What a person sees while a stage runs: a bar with rate and time left, or plain lines where the output is no
terminal; and the metrics log (metrics.jsonl and TensorBoard)."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from nla_jax.parallel import distributed

LINE_SECONDS = 15.0


def say(text: str) -> None:
  """One line for the person who runs this, above any bar; by the first process."""
  if not distributed.is_first():
    return
  tqdm.write(text, file=sys.stderr)
  sys.stderr.flush()


class Progress:
  """A bar of `total` units. In a pipe or a log file: a line every 15 s with rate and time left."""

  def __init__(self, name: str, total: int, unit: str, done: int = 0):
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
    self.done += n
    if self._terminal:
      self._bar.update(n)
      if values:
        self._bar.set_postfix({key: f"{value:.3g}" for key, value in values.items()}, refresh=False)
    elif time.time() - self._last > LINE_SECONDS or self.done >= self.total:
      self._last = time.time()
      rate = (self.done - self._first) / max(time.time() - self._start, 1e-9)
      left = (self.total - self.done) / rate if rate else float("inf")
      shown = "".join(f"  {key} {value:.4g}" for key, value in values.items())
      say(
        f"{self.name}: {self.done}/{self.total} {self.unit}  {rate:.2f} {self.unit}/s  {left:.0f} s left{shown}"
      )

  def close(self) -> None:
    self._bar.close()


def track(items: Iterable, name: str, unit: str, total: int | None = None) -> Iterator:
  """`items`, with a bar."""
  items = list(items) if total is None else items
  progress = Progress(name, len(items) if total is None else total, unit)
  for item in items:
    yield item
    progress.advance()
  progress.close()


class StepLines:
  """A file of JSON lines, one or more a step, that a resumed run goes on with."""

  def __init__(self, path: Path, resume_step: int = 0):
    """Lines of steps at or after `resume_step`, written by a run that was stopped, are dropped."""
    self._file = None  # only the first process writes
    if not distributed.is_first():
      return
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [line for line in read_lines(path) if line["step"] < resume_step]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    self._file = open(path, "a")  # noqa: SIM115 - lives as long as the stage

  def write(self, step: int, **values) -> None:
    if self._file is not None:
      self._file.write(json.dumps({"step": step, **values}) + "\n")
      self._file.flush()

  def close(self) -> None:
    if self._file is not None:
      self._file.close()


class MetricsLog:
  """Scalars by step: `metrics.jsonl` and, beside it, TensorBoard event files."""

  def __init__(self, folder: Path, resume_step: int = 0):
    self._lines = StepLines(folder / "metrics.jsonl", resume_step)
    self._board = None  # only the first process writes
    if distributed.is_first():
      from tensorboardX import (
        SummaryWriter,  # imports torch where it is installed, which takes more than a second
      )

      self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step)

  def write(self, step: int, **values: float) -> None:
    self._lines.write(step, **{key: float(value) for key, value in values.items()})
    if self._board is not None:
      for key, value in values.items():
        self._board.add_scalar(key, float(value), step)

  def close(self) -> None:
    self._lines.close()
    if self._board is not None:
      self._board.close()


def read_lines(path: Path) -> list[dict]:
  """The lines of a StepLines file; a last line cut off by a crash is left out."""
  lines = []
  for line in path.read_text().splitlines() if path.exists() else ():
    try:
      lines.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return lines


def read_metrics(folder: Path) -> list[dict]:
  """The curve that a stage wrote to `folder`."""
  return read_lines(folder / "metrics.jsonl")
