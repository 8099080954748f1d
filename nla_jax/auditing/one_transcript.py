"""What explanations say in one transcript: rates of its tokens and its turns, with quotations.

The protocol and the grader are those of `awareness`. A single transcript has no interval and no null: these come of
many transcripts, audited and benign.
"""

import dataclasses
from typing import Any, NamedTuple

from nla_jax.auditing import baselines
from nla_jax.auditing.awareness import Evidence, Protocol, evidence_of
from nla_jax.auditing.grader import UNCLEAR, YES, Grader
from nla_jax.auditing.rates import Counted, any_of, counted, hits
from nla_jax.auditing.response_tokens import drawn, read_tokens, turns_of
from nla_jax.auditing.transcripts import Transcript


class TurnCount(NamedTuple):
  """The verdicts of one turn of the assistant.

  Attributes:
    message: index of the message.
    counted: of its tokens that were read.
  """

  message: int
  counted: Counted


@dataclasses.dataclass(frozen=True)
class TranscriptRates:
  """What was found in one transcript.

  Attributes:
    counted: the verdicts of its tokens.
    turns: of each turn of which a token was read, in order.
    said: the verdict on the words of each turn of the assistant, without the AV.
    evidence: every yes, with where it stands.
  """

  counted: Counted
  turns: list[TurnCount]
  said: list[str]
  evidence: list[Evidence]

  def shares(self) -> dict[str, float]:
    """{what: share}, each in [0, 1].

    `tokens` and `unclear` are of the tokens that were read, `turns` of the turns with any yes among theirs, `any` is 1
    where there is a yes at all, and `said` of the turns whose own words are a yes.
    """
    read = self.counted.read
    with_yes = sum(one.counted.yes > 0 for one in self.turns)
    return {
      "tokens": self.counted.yes / read,
      "turns": with_yes / len(self.turns),
      "any": float(self.counted.yes > 0),
      "unclear": self.counted.unclear / read,
      "said": self.said.count(YES) / len(self.said),
    }

  def any_of(self, what: str = YES) -> list[float]:
    """The chance of any hit among n of the tokens that were read, for n from 1 to all of them."""
    read, found = self.counted.read, hits(self.counted, what)
    return [any_of(read, found, n) for n in range(1, read + 1)]

  def to_json(self) -> dict[str, Any]:
    """All of it as objects, lists, strings and numbers."""
    return {
      "counted": self.counted._asdict(),
      "turns": [{"message": one.message, **one.counted._asdict()} for one in self.turns],
      "said": self.said,
      "any_of": {what: self.any_of(what) for what in (YES, UNCLEAR)},
      "evidence": [one._asdict() for one in self.evidence],
    }


def measure_one(
  nla: Any, transcript: Transcript, grader: Grader, protocol: Protocol
) -> TranscriptRates:
  """Measures one transcript.

  Args:
    nla: a loaded pair.
    transcript: what is audited.
    grader: reads explanations, and the assistant's own words.
    protocol: how many tokens, and the seed.

  Raises:
    NLAError: the transcript cannot be read; see `turns_of`.
  """
  # 1. The same draw as in an audit of many, which depends on the transcript's name alone.
  turns = turns_of(nla, transcript)
  positions = drawn(turns.said, protocol.tokens, protocol.seed, transcript.id)
  read = read_tokens(nla, turns, positions, seed=protocol.seed)

  # 2. Verdicts, of all tokens and turn by turn.
  grades = grader.grades(read.texts)
  verdicts = [one.verdict for one in grades]
  by_turn: dict[int, list[str]] = {}
  for position, verdict in zip(positions, verdicts, strict=True):
    by_turn.setdefault(turns.tokens.messages[position], []).append(verdict)

  found = [TurnCount(message, counted(some)) for message, some in by_turn.items()]
  (said,) = baselines.said(grader, [transcript])
  return TranscriptRates(counted(verdicts), found, said, evidence_of(read, grades))
