"""What an AV answered: the explanation in it, or why there is none."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from nla_jax.autoencoder.prompts import TAGS, parse_explanation, wrap_explanation
from nla_jax.autoencoder.text import decode, encode
from nla_jax.autoencoder.tokens import special_tokens
from nla_jax.errors import NLAError
from nla_jax.progress import say

CUT = "the answer hit the cap on its length"
NO_TAGS = "the answer has no <explanation> tags"
UNCLOSED = "the answer does not close its <explanation>"
EMPTY = "the explanation is empty"
_TAUGHT = ("plain words about snow", "two\n\nparagraphs of 12 words, and more")


class Answer(NamedTuple):
  """An AV's answer.

  Attributes:
    raw: as it was sampled, without the tokens that end it.
    explanation: None where there is none.
    reason: why there is none; None where there is one.
  """

  raw: str
  explanation: str | None
  reason: str | None


def read_answer(raw: str, finished: bool) -> Answer:
  """The explanation in an answer, between its tags; `finished` says whether it ended before the cap."""
  # An answer that was cut is a failure even where it parses: rewarding it would make lengths drift up.
  if not finished:
    return Answer(raw, None, CUT)
  text = parse_explanation(raw)
  if text is not None:
    return Answer(raw, text, None)

  # Why not.
  if not raw.strip():
    return Answer(raw, None, EMPTY)
  if TAGS[0] not in raw:
    return Answer(raw, None, NO_TAGS)
  return Answer(raw, None, EMPTY if TAGS[1] in raw.split(TAGS[0], 1)[1] else UNCLOSED)


def taken_plain(answer: Answer) -> Answer:
  """A whole answer without tags as the explanation that it is, of a pair whose prompt asks for no tags.

  Training and evaluation never do so: whatever the prompt says, an AV is taught here to write tags.
  """
  plain = answer.reason == NO_TAGS and TAGS[1] not in answer.raw
  return Answer(answer.raw, answer.raw.strip(), None) if plain else answer


def decode_answers(tokenizer, rows: Sequence[Sequence[int]]) -> list[str]:
  """The words of sampled tokens: without special tokens, but for those that are the explanation's tags."""
  # Some pairs have the tags as special tokens, which a plain call would leave out with the others.
  silent = {token for token, text in special_tokens(tokenizer).items() if text.strip() not in TAGS}
  kept = [[token for token in map(int, row) if token not in silent] for row in rows]
  return [decode(tokenizer, row, special=True) for row in kept]


def check_answers(tokenizer, stop_ids: Collection[int]) -> None:
  """Raises NLAError where an answer that the AV is taught, sampled and decoded, would not give its text back.

  Args:
    tokenizer: of the pair.
    stop_ids: tokens at which sampling stops.
  """
  rows = [encode(tokenizer, wrap_explanation(text)) for text in _TAUGHT]
  stops = sorted({token for row in rows for token in row} & set(stop_ids))
  if stops:
    raise NLAError(
      f"the token {tokenizer.decode(stops[:1])!r} (id {stops[0]}) ends an answer by the model's files, and answers "
      "that the AV is taught hold it: correct eos_token_id in config.json and generation_config.json"
    )

  for text, raw in zip(_TAUGHT, decode_answers(tokenizer, rows)):
    found = parse_explanation(raw)
    # Blanks and case are a tokenizer's own, as of one that writes all in lower case.
    if found is None or found.split() != text.split():
      raise NLAError(
        f"an answer that the AV is taught does not come back from this tokenizer: {wrap_explanation(text)!r} becomes "
        f"{raw[:80]!r}; take a tokenizer that decodes what it encodes"
      )


def warn_of_failures(answers: Sequence[Answer]) -> bool:
  """Says so, once, where most answers of a call hold no explanation, with the commonest reason; whether it did."""
  reasons = Counter(answer.reason for answer in answers if answer.reason is not None)
  failed = sum(reasons.values())
  bad = 2 * failed > len(answers)
  if bad:
    reason, n = reasons.most_common(1)[0]
    shown = next(answer.raw for answer in answers if answer.reason == reason)
    say(
      f"warning: {failed} of {len(answers)} answers hold no explanation; in {n} {reason}: {shown[:60]!r}. Each "
      "explanation's `answer` and `reason` say more"
    )
  return bad


class WarnOnce:
  """`warn_of_failures` for who draws again and again, as a server does: what is said once is not said again."""

  def __init__(self):
    self._said = False

  def __call__(self, answers: Sequence[Answer]) -> None:
    """Warns of these answers, unless others were warned of."""
    self._said = self._said or warn_of_failures(answers)
