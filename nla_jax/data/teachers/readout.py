"""The readout teacher: the text that the AV's first words are learned from, without a key or a network.

It states only what can be verified: the target's likeliest next tokens (from its own forward), rare words of the
context, and the very last words. What matters most for the next token comes first, the end of the text last, as
`docs/interchange.md` asks of every explanation.
"""

import collections
import math
import re
from collections.abc import Sequence

from nla_jax.autoencoder.tokens import encode

_WORD = re.compile(r"[^\W\d_][\w'’-]+")
_SEVERAL_GROUPS = 3  # a word of fewer groups ranks last: a name seen once teaches the AV nothing


class TopicWords:
  """Finds what a context is about: its words that are frequent here and rare across the corpus's groups.

  A word that fewer than three groups use comes after all others.

  Args:
    texts: one per group (an article); their number is what rarity is counted in.
  """

  def __init__(self, texts: Sequence[str]):
    self._groups = max(len(texts), 1)
    self._seen = collections.Counter()
    for text in texts:
      # A set: a word counts once a group, however often its article says it.
      self._seen.update({word.lower() for word in _WORD.findall(text)})

  def rank(self, context: str) -> list[str]:
    """Returns the distinct words of `context`, best first, as last written there; ties go to the later word."""
    counts, shown, last = collections.Counter(), {}, {}
    for place, match in enumerate(_WORD.finditer(context)):
      word = match.group().lower()
      counts[word] += 1
      shown[word], last[word] = match.group(), place

    def score(word: str) -> tuple[bool, float, int]:
      groups = self._seen[word]
      rarity = math.log((1 + self._groups) / (1 + groups))
      return groups >= _SEVERAL_GROUPS, math.sqrt(counts[word]) * rarity, last[word]

    # Words of three letters and fewer are mostly grammar.
    return [shown[word] for word in sorted(counts, key=score, reverse=True) if len(word) > 3]


def last_words(context: str, n: int) -> str:
  """Returns the last `n` whitespace-separated pieces of `context`, on one line."""
  return " ".join(context.split()[-n:])


def readout(
  tokenizer, context_ids: Sequence[int], next_tokens: Sequence[int], topics: TopicWords, settings
) -> str:
  """Returns the readout teacher's explanation of one position.

  Args:
    tokenizer: the target's.
    context_ids: the document's tokens up to and including the position.
    next_tokens: the target's predictions there, likeliest first.
    topics: of the corpus.
    settings: the config's `teacher`; topic words are left out until the text fits `max_tokens`.
  """
  context = tokenizer.decode(context_ids, skip_special_tokens=True)
  guesses = []
  for token in next_tokens:
    word = tokenizer.decode([token], skip_special_tokens=True).strip()
    if word and word not in guesses:
      guesses.append(word)

  end = last_words(context, settings.last_words)
  words = [word for word in topics.rank(context) if word not in end][: settings.topic_words]

  # Over the limit, what the target itself says of the position, its guesses, is kept longest.
  while True:
    text = _features(guesses[: settings.next_tokens], words, end)
    if len(encode(tokenizer, text)) <= settings.max_tokens:
      return text
    if words:
      words.pop()
    elif " " in end:
      end = end.split(" ", 1)[1]
    elif guesses:
      guesses.pop()
    else:
      return text


def _features(guesses: Sequence[str], words: Sequence[str], end: str) -> str:
  """Returns the text: a paragraph a feature; one that says nothing is left out."""
  features = []
  if guesses:
    features.append(f"Next: {', '.join(guesses)}")
  if words:
    features.append(f"About: {', '.join(words)}")
  features.append(f'Ends: "{end}"')
  return "\n\n".join(features)
