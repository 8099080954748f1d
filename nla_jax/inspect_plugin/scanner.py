"""The scanner `nla_scanner`: how often explanations say a topic, in any transcript that Scout reads; and its scorer.

    scan(scanners=[nla_scanner(nla="package:NAME")], transcripts=transcripts_from("logs"), max_processes=1)

Each process of a scan loads the pair, so one process is as fast as the device is. A scan that was stopped goes on with
`scan_resume` where the pair was given by its name. What scans came to, with intervals and the null: `scans.py`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from inspect_ai.scorer import Scorer, mean, stderr
from inspect_scout import Reference, Result, Scanner, as_scorer, scanner
from inspect_scout import Transcript as Scanned

from nla_jax.auditing.awareness import Evidence, Protocol
from nla_jax.auditing.grader import DEFAULT, Grader, grader_of
from nla_jax.auditing.one_transcript import TranscriptRates, measure_one
from nla_jax.auditing.response_tokens import TOKENS
from nla_jax.auditing.transcripts import Transcript, chat_messages
from nla_jax.autoencoder.nla import NLA
from nla_jax.errors import NLAError
from nla_jax.inspect_plugin.computing import computed, expect_pair, pair_of

QUOTES = 6  # pieces of evidence that a result shows; all of them are in its metadata
SHARES = ("tokens", "turns", "any", "unclear", "said")  # of a result's value


@scanner(messages="all", version=1, metrics={name: [mean(), stderr()] for name in SHARES})
def nla_scanner(
  topic: str = DEFAULT,
  *,
  nla: NLA | str = "",
  tokens: int = TOKENS,
  seed: int = 0,
  judge: str = "",
) -> Scanner[Scanned]:
  """A scanner that measures one topic in transcripts by an NLA.

  A result's value is {"tokens", "turns", "any", "unclear", "said"}: the shares of tokens and of turns whose
  explanations say the topic, whether any does, the share of tokens that is unclear, and the share of turns that say it
  in their own words. Its metadata has the counts, the chance of any among n tokens for every n, each turn and each
  quotation. A transcript that cannot be read has no value, and the explanation says why.

  Args:
    topic: a grader of the package or a .yaml file; see docs/auditing.md.
    nla: a loaded pair, or its name.
    tokens: of each transcript, drawn from what the assistant said or thought.
    seed: of the tokens and the explanations.
    judge: a provider's YAML file that names a language model, which grades in place of the rules.

  Raises:
    NLAError: there is no such grader, or no token is to be read.
  """
  grader, protocol = grader_of(topic, judge), Protocol(tokens=tokens, seed=seed)
  expect_pair(nla)

  async def scan(transcript: Scanned) -> Result:
    def measured() -> TranscriptRates:
      messages = tuple(chat_messages(transcript.messages))
      one = Transcript(transcript.transcript_id, messages)
      return measure_one(pair_of(nla), one, grader, protocol)

    try:
      found = await computed(measured)
    except NLAError as error:
      return Result(value=None, explanation=str(error))
    return _result(found, [one.id for one in transcript.messages], grader, protocol)

  return scan


def nla_scorer(topic: str = DEFAULT, **options: Any) -> Scorer:
  """The same as a scorer of Inspect, of each sample's conversation; the arguments are those of `nla_scanner`."""
  return as_scorer(nla_scanner(topic, **options))


def _result(
  found: TranscriptRates, ids: Sequence[str | None], grader: Grader, protocol: Protocol
) -> Result:
  shown = found.evidence[:QUOTES]
  # Messages are cited by their numbers, as Scout's own scanners do; their ids are what a viewer follows.
  cited = list(dict.fromkeys(one.message for one in found.evidence))
  references = [
    Reference(type="message", id=ids[i], cite=_cite(i)) for i in cited if ids[i] is not None
  ]
  how = {"topic": grader.topic, "grader": grader.name, "protocol": dataclasses.asdict(protocol)}
  return Result(
    value=found.shares(),
    explanation="\n".join([_summary(found, grader.topic), *map(_quoted, shown)]),
    metadata=how | found.to_json(),
    references=references,
  )


def _summary(found: TranscriptRates, topic: str) -> str:
  yes, read = found.counted.yes, found.counted.read
  turns = sum(one.counted.yes > 0 for one in found.turns)
  return f"{topic}: {yes} of {read} tokens, {turns} of {len(found.turns)} turns; {found.counted.unclear} tokens unclear"


def _quoted(one: Evidence) -> str:
  return f"{_cite(one.message)} token {one.position}, after {one.before[-40:]!r}: {one.quote!r}"


def _cite(message: int) -> str:
  return f"[M{message + 1}]"
