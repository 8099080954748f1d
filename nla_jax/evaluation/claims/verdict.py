"""Whether a claim is true of its context, decided from the document and the target's own predictions alone.

- `Next`: the word is among the target's top k at the position. Whether it is the word that comes is said apart.
- `About` and names: the word stands in the context; if not, it is related where the same article has it.
- `Ends` and quotes: verbatim, or at least three words in a row of it are; if not, related where two are.
- Numbers: they stand in the context.

Only claims about the context are tested: a word that is verbatim there need not be what the target thinks of.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from nla_jax.autoencoder.explanation import Claim
from nla_jax.autoencoder.text import decode, next_word
from nla_jax.evaluation.claims.parse import ENDS, NEXT
from nla_jax.evaluation.subject import Subject

RUN = 3  # words in a row that make a quote true
_TAIL = 16  # words of the context in which its end is looked for
_WORD = re.compile(r"\w[\w'’-]*")


class Context(NamedTuple):
  """What a claim is judged by.

  Attributes:
    text: the document up to the position.
    article: all of the document's group.
    guesses: the target's likeliest next words, or None where the store does not have them.
    next: the word that comes; "" at the end of a document.
  """

  text: str
  article: str
  guesses: tuple[str, ...] | None
  next: str


class Judged(NamedTuple):
  """A claim with its verdict.

  Attributes:
    claim: with `verdict` and `related`; a verdict of None where it cannot be judged.
    actual: of a `Next` claim whether it is the word that comes; None of others.
  """

  claim: Claim
  actual: bool | None


def contexts_of(subject: Subject) -> list[Context]:
  """The context of each row."""
  tokenizer, store = subject.nla.pair.tokenizer, subject.store
  known = store is not None and "next_tokens" in store.names
  likeliest = store.read("next_tokens", subject.rows) if known else [None] * subject.n

  texts, found = _articles(subject), []
  for one, at, tokens in zip(subject.documents, subject.positions.tolist(), likeliest):
    before = one.tokens[: at + 1]
    guesses = None
    if tokens is not None:
      words = (next_word(tokenizer, before, int(token)) for token in tokens)
      guesses = tuple(dict.fromkeys(word.casefold() for word in words if word))
    more = at + 1 < len(one.tokens)
    following = next_word(tokenizer, before, int(one.tokens[at + 1])) if more else ""
    found.append(
      Context(decode(tokenizer, before), texts[one.group], guesses, following.casefold())
    )
  return found


def _articles(subject: Subject) -> dict[str, str]:
  """The text of each group, with those of its documents that were not drawn."""
  tokenizer, wanted, articles = subject.nla.pair.tokenizer, set(subject.groups.tolist()), {}
  documents = subject.documents
  if subject.store is not None:
    every = subject.store.documents
    documents = [every[i] for i, group in enumerate(every.groups) if group in wanted]

  for one in documents:
    articles.setdefault(one.group, {})[one.id] = decode(tokenizer, one.tokens)
  return {group: "\n".join(texts.values()) for group, texts in articles.items()}


def judged(claims: Sequence[Claim], context: Context) -> list[Judged]:
  """The claims of one explanation, judged by a context."""
  return [_judge(claim, context) for claim in claims]


def _judge(claim: Claim, context: Context) -> Judged:
  word = claim.text.casefold()
  if claim.field == NEXT:
    # Without the target's predictions nobody knows; that the word comes would be another claim.
    verdict = None if context.guesses is None else word in context.guesses
    related = has_word(context.article, word)
    return Judged(_with(claim, verdict, related), word == context.next)

  if claim.field in (ENDS, "quote"):
    verdict, related = _judge_quote(claim, context)
    return Judged(_with(claim, verdict, related), None)

  return Judged(_with(claim, has_word(context.text, word), has_word(context.article, word)), None)


def _judge_quote(claim: Claim, context: Context) -> tuple[bool, bool]:
  """Whether a quote is true, and whether it is at least about the article."""
  quote = words_of(claim.text)
  if claim.field == ENDS:
    # By characters too: a text may end within a word, and a quote may hold none.
    end, said = claim.text.casefold().strip(), words_of(context.text)[-_TAIL:]
    verbatim = bool(end) and context.text.casefold().rstrip().endswith(end)
    verbatim = verbatim or (bool(quote) and said[-len(quote) :] == quote)
    true = verbatim or longest_run(quote, said) >= RUN
  else:
    true = bool(quote) and _has_run(quote, context.text, min(RUN, len(quote)))
  return true, bool(quote) and _has_run(quote, context.article, min(2, len(quote)))


def _has_run(words: Sequence[str], text: str, n: int) -> bool:
  """Says whether a text has some n of the words in a row."""
  return not _runs(text, n).isdisjoint(zip(*(words[i:] for i in range(n))))


# An article is asked about once for each of its claims.
@functools.lru_cache(maxsize=64)
def _runs(text: str, n: int) -> frozenset[tuple[str, ...]]:
  said = words_of(text)
  return frozenset(zip(*(said[i:] for i in range(n))))


@functools.lru_cache(maxsize=64)
def _small(text: str) -> str:
  return text.casefold()


def _with(claim: Claim, verdict: bool | None, related: bool) -> Claim:
  # What is true is no invention, and needs no excuse.
  return dataclasses.replace(
    claim, verdict=verdict, related=None if verdict is not False else related
  )


def words_of(text: str) -> list[str]:
  """The words of a text in small letters."""
  return [word.casefold() for word in _WORD.findall(text)]


def has_word(text: str, word: str) -> bool:
  """Says whether a text has a word, or words in a row, as whole words and in whatever capitals."""
  word, small = word.casefold().strip(), _small(text)
  # Most words are not there, and a plain search says so at once.
  if not word or word not in small:
    return False
  begin = r"(?<!\w)" if word[:1].isalnum() else ""
  end = r"(?!\w)" if word[-1:].isalnum() else ""
  return re.search(f"{begin}{re.escape(word)}{end}", small) is not None


def longest_run(a: Sequence[str], b: Sequence[str]) -> int:
  """The length of the longest sequence of words in a row that both have."""
  # Of the words of `a` so far: how long a run ends at each word of `b`.
  best, ending = 0, [0] * (len(b) + 1)
  for one in a:
    now = [0] * (len(b) + 1)
    for j, other in enumerate(b, 1):
      if one == other:
        now[j] = ending[j - 1] + 1
        best = max(best, now[j])
    ending = now
  return best
