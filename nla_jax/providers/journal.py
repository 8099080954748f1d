"""What was asked, answered and paid: a line an answer, kept so that nothing is paid twice."""

from typing import NamedTuple

from nla_jax.bucket import Place
from nla_jax.json_lines import JsonLines, read_lines
from nla_jax.providers.request import Answer


class Spent(NamedTuple):
  """What a journal adds up to.

  Attributes:
    requests: that were answered.
    input_tokens: as the provider counted them.
    output_tokens: likewise.
    dollars: their price, at the time.
  """

  requests: int
  input_tokens: int
  output_tokens: int
  dollars: float


class Journal:
  """A file of JSON lines with every answer, and the batches that are under way. One process writes.

  On a disk a line is durable before its answer is used. In a bucket the last seconds can be lost.
  """

  def __init__(self, path: Place):
    """Opens the file, or begins it. Raises NLAError where it cannot be written."""
    self._answers: dict[str, Answer] = {}
    self._batches: dict[str, list[str]] = {}
    self._dollars = 0.0
    for line in read_lines(path):
      self._take(line)
    self._lines = JsonLines(path)

  def find(self, digest: str) -> Answer | None:
    """The answer to a request; None where there is none yet."""
    return self._answers.get(digest)

  @property
  def batches(self) -> dict[str, list[str]]:
    """Batches that are under way: the digests of their requests, by the provider's name."""
    return dict(self._batches)

  def add(self, digest: str, answer: Answer, dollars: float) -> None:
    """Keeps an answer and what it cost."""
    self._write({"request": digest, **answer._asdict(), "dollars": dollars})

  def begin_batch(self, name: str, digests: list[str]) -> None:
    """Keeps that a batch is under way."""
    self._write({"batch": name, "requests": digests})

  def end_batch(self, name: str) -> None:
    """Keeps that a batch is done."""
    self._write({"batch": name, "requests": []})

  @property
  def spent(self) -> Spent:
    """What all answers cost."""
    answers = self._answers.values()
    return Spent(
      len(answers),
      sum(answer.input_tokens for answer in answers),
      sum(answer.output_tokens for answer in answers),
      self._dollars,
    )

  def close(self) -> None:
    """Closes the file."""
    self._lines.close()

  def _write(self, line: dict) -> None:
    self._lines.write(line)
    self._lines.to_disk()
    self._take(line)

  def _take(self, line: dict) -> None:
    if "batch" in line:
      self._batches[line["batch"]] = line["requests"]
      if not line["requests"]:
        del self._batches[line["batch"]]
      return
    self._answers[line["request"]] = Answer(
      line["text"], line["input_tokens"], line["output_tokens"]
    )
    self._dollars += line["dollars"]
