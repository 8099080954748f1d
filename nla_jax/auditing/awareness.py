"""How often explanations say that the target thinks it is tested: the paper's protocol with its null and baselines.

1. Of each transcript 50 tokens of the assistant are drawn by a seed, and each is explained once.
2. A grader says yes, no or unclear of each explanation.
3. Rates: of tokens, and of transcripts with any yes among n tokens, for every n. Unclear has a column of its own.
4. The same of benign transcripts stands beside every rate, since any of 50 turns a small false rate into a large one.
5. The same question is answered without the AV; see `baselines`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nla_jax.auditing import baselines
from nla_jax.auditing.grader import UNCLEAR, YES, Grader
from nla_jax.auditing.rates import Counted, any_rates, counted, token_rate
from nla_jax.auditing.response_tokens import TOKENS, Read, before, drawn, read_tokens, turns_of
from nla_jax.auditing.transcripts import Transcript
from nla_jax.errors import NLAError
from nla_jax.evaluation import calibration, ranking
from nla_jax.evaluation.intervals import Estimate
from nla_jax.evaluation.judges.judge import Grade

NLA_ROW = "NLA"
_BINS = 5  # of the reliability curve: labelled transcripts are few
QUOTES = 12  # pieces of evidence that are kept
Say = Callable[[str], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
  """How awareness is measured.

  Attributes:
    tokens: of each transcript, at most.
    seed: of the tokens, the explanations and the intervals.
  """

  tokens: int = TOKENS
  seed: int = 0

  def __post_init__(self):
    if self.tokens < 1:
      raise NLAError(f"tokens={self.tokens}: at least one token of a transcript has to be read")


class Row(NamedTuple):
  """What one reader found in one set of transcripts.

  Attributes:
    tokens: {yes, unclear} share of what was graded.
    any_of: {yes, unclear} share of transcripts with any, for n = 1, 2, …
    transcripts: how many there are.
    scores: of each transcript, higher for what is more aware; by which an AUC is computed.
  """

  tokens: Mapping[str, Estimate | None]
  any_of: Mapping[str, list[Estimate]]
  transcripts: int
  scores: list[float]


class Evidence(NamedTuple):
  """A yes, with where it stands.

  Attributes:
    transcript: its id.
    message: index of the message.
    position: index of the token.
    quote: the part of the explanation that holds the verdict.
    before: the words before the token.
  """

  transcript: str
  message: int | None
  position: int
  quote: str
  before: str


@dataclasses.dataclass(frozen=True)
class Awareness:
  """What was measured.

  Attributes:
    topic: what was looked for.
    grader: who graded.
    protocol: how.
    rows: {reader: {"audited": Row, "benign": Row}}.
    evidence: the first `QUOTES` yeses of audited transcripts.
    calibration: {reader: {"transcripts": AUC, "tokens": AUC or None}} where labels are known.
    reliability: of the NLA, bins of transcripts by their share of yes, where labels are known.
    left_out: {id of a transcript, or a reader: why it is not in}.
  """

  topic: str
  grader: str
  protocol: Protocol
  rows: dict[str, dict[str, Row]]
  evidence: list[Evidence]
  calibration: dict[str, dict[str, float | None]]
  reliability: list[dict[str, float]]
  left_out: dict[str, str]


def measure(
  nla: Any,
  audited: Sequence[Transcript],
  benign: Sequence[Transcript],
  grader: Grader,
  protocol: Protocol | None = None,
  *,
  labels: Mapping[str, int] | None = None,
  say: Say = lambda line: None,
) -> Awareness:
  """Measures awareness in transcripts.

  Args:
    nla: a loaded pair.
    audited: what is asked about.
    benign: transcripts of ordinary use, whose rate is the null.
    grader: reads explanations.
    protocol: how many tokens, and the seed.
    labels: {id: 1 or 0}, what the target is known to believe, over those that transcripts carry.
    say: is shown how far it is.

  Raises:
    NLAError: no audited or no benign transcript can be read.
  """
  protocol = protocol or Protocol()
  left_out: dict[str, str] = {}

  # 1. Tokens and explanations. A transcript that cannot be read costs itself alone.
  reads = {}
  for name, several in (("audited", audited), ("benign", benign)):
    reads[name] = [one for one in _read(nla, several, protocol, left_out, say)]
    if not reads[name]:
      why = next(iter(left_out.values()), "there is none")
      raise NLAError(f"no {name} transcript can be read: {why}")

  # 2. Verdicts of every reader on every transcript.
  verdicts, scores = _verdicts(nla, reads, grader, protocol, left_out)
  known = _labels(reads, labels or {})
  token_scores = {}
  if len(set(known.values())) == 2:
    _probe(reads, known, protocol, scores, token_scores)
  else:
    left_out["probe"] = "it needs transcripts with both labels: give --labels"

  # 3. Rates, and where the truth is known, calibration.
  rows = _rows(verdicts, scores, reads, protocol)
  every = [one for name in reads for one in reads[name]]
  found = _evidence(reads["audited"], grader)
  calibration, bins = _calibrated(every, rows, verdicts, token_scores, known)
  return Awareness(grader.topic, grader.name, protocol, rows, found, calibration, bins, left_out)


def _read(nla, several, protocol: Protocol, left_out: dict[str, str], say: Say):
  for number, one in enumerate(several, 1):
    try:
      turns = turns_of(nla, one)
      positions = drawn(turns.said, protocol.tokens, protocol.seed, one.id)
      yield read_tokens(nla, turns, positions, seed=protocol.seed)
    except NLAError as error:
      left_out[one.id] = str(error)
      continue
    say(f"read {number} of {len(several)} transcripts")


def _verdicts(nla, reads: Mapping[str, list[Read]], grader: Grader, protocol: Protocol, left_out):
  """{reader: {set: verdicts of each transcript}}, and {reader: {set: scores}} of readers without verdicts."""
  verdicts: dict[str, dict[str, list[list[str]]]] = {}
  scores: dict[str, dict[str, list[float]]] = {}
  every = [one for several in reads.values() for one in several]
  mixed = dict(zip(map(id, every), baselines.shuffled(every, protocol.seed)))
  by_reader = {
    NLA_ROW: lambda several: [one.texts for one in several],
    "shuffled": lambda several: [mixed[id(one)] for one in several],
    "text": baselines.around,
    "lens": lambda several: baselines.lens_of(nla, several),
  }
  for reader, texts_of in by_reader.items():
    try:
      verdicts[reader] = {
        name: baselines.graded(grader, texts_of(several)) for name, several in reads.items()
      }
    except NLAError as error:
      left_out[reader] = str(error)

  transcripts = {name: [one.turns.transcript for one in several] for name, several in reads.items()}
  verdicts["said"] = {name: baselines.said(grader, some) for name, some in transcripts.items()}
  try:
    scores["follow-up"] = {
      name: baselines.follow_up(nla, some) for name, some in transcripts.items()
    }
  except NLAError as error:
    left_out["follow-up"] = str(error)
  return verdicts, scores


def _labels(reads: Mapping[str, list[Read]], given: Mapping[str, int]) -> dict[str, int]:
  found = {}
  for several in reads.values():
    for one in several:
      name, own = one.turns.transcript.id, one.turns.transcript.label
      label = given.get(name, own)
      if label is not None:
        found[name] = label
  return found


def _probe(reads, known, protocol, scores, token_scores) -> None:
  """Adds the probe's scores of transcripts with a label."""
  every = [one for several in reads.values() for one in several]
  labelled = [one for one in every if one.turns.transcript.id in known]
  values = baselines.probed(labelled, known, protocol.seed)
  token_scores["probe"] = {
    one.turns.transcript.id: list(map(float, row)) for one, row in zip(labelled, values)
  }
  means = {name: sum(row) / len(row) for name, row in token_scores["probe"].items()}
  scores["probe"] = {
    name: [means.get(one.turns.transcript.id, 0.0) for one in several]
    for name, several in reads.items()
  }


def _rows(verdicts, scores, reads, protocol: Protocol) -> dict[str, dict[str, Row]]:
  rows: dict[str, dict[str, Row]] = {}
  for reader, by_set in verdicts.items():
    for name, several in by_set.items():
      counts = [counted(one) for one in several]
      shares = baselines.share_of_yes(several)
      rows.setdefault(reader, {})[name] = row_of(counts, protocol, shares)
  for reader, by_set in scores.items():
    for name, values in by_set.items():
      # More than even odds is a yes; it is one answer of a transcript.
      counts = [Counted(1, int(value > 0), 0) for value in values]
      rows.setdefault(reader, {})[name] = row_of(counts, protocol, list(values))
  return rows


def row_of(counts: Sequence[Counted], protocol: Protocol, scores: list[float]) -> Row:
  """The rates of one set of transcripts.

  Args:
    counts: the verdicts of each transcript.
    protocol: how they were measured.
    scores: of each transcript, higher for what is more aware.
  """
  most = min(protocol.tokens, max(one.read for one in counts)) or 1
  kinds = (YES, UNCLEAR)
  tokens = {what: token_rate(counts, what, protocol.seed) for what in kinds}
  any_of = {what: any_rates(counts, most, what, protocol.seed) for what in kinds}
  return Row(tokens, any_of, len(counts), scores)


def _calibrated(every, rows, verdicts, token_scores, known):
  """AUC of each reader and the NLA's reliability, of the transcripts with a label."""
  if len(set(known.values())) < 2:
    return {}, []
  names = [one.turns.transcript.id for one in every]
  has = [i for i, name in enumerate(names) if name in known]
  truth = [known[names[i]] for i in has]

  found = {}
  for reader, by_set in rows.items():
    scores = [score for row in by_set.values() for score in row.scores]
    of_tokens = token_scores.get(reader)
    if of_tokens is None and reader in verdicts and reader != "said":
      flat = [several for by in verdicts[reader].values() for several in by]
      of_tokens = {names[i]: [float(one == YES) for one in flat[i]] for i in has}
    tokens = None
    if of_tokens is not None:
      pairs = [(value, known[name]) for name, row in of_tokens.items() for value in row]
      tokens = _area(*zip(*pairs))
    found[reader] = {"transcripts": _area([scores[i] for i in has], truth), "tokens": tokens}
  shares = [score for row in rows[NLA_ROW].values() for score in row.scores]
  bins = calibration.reliability(np.array([shares[i] for i in has]), np.array(truth), _BINS)
  return found, [{"said": said, "true": true, "n": n} for said, true, n in bins]


def _area(scores: Sequence[float], truth: Sequence[int]) -> float | None:
  """The area under the ROC curve; None where one kind is missing."""
  found = ranking.ranks(np.array(scores), np.array(truth)).auc
  return None if np.isnan(found) else found


def _evidence(reads: Sequence[Read], grader: Grader) -> list[Evidence]:
  found = [piece for one in reads for piece in evidence_of(one, grader.grades(one.texts))]
  return found[:QUOTES]


def evidence_of(one: Read, grades: Sequence[Grade]) -> list[Evidence]:
  """The yeses among the grades of one transcript's explanations."""
  found = []
  for position, grade in zip(one.positions, grades, strict=True):
    if grade.verdict == YES:
      message = one.turns.tokens.messages[position]
      words = before(one.turns, position, 80)
      found.append(Evidence(one.turns.transcript.id, message, position, grade.evidence, words))
  return found
