"""The teacher: the text that the AV's first words are learned from.

`readout` needs no key and no network. It states only what can be verified: the target's likeliest next tokens (from
its own forward), rare words of the context, and the very last words; most important for what comes next first, the
end of the text last, as in the interchange contract.
"""

import collections
import math
import re
from collections.abc import Sequence

from nla_jax.autoencoder.prompts import encode

_WORD = re.compile(r"[^\W\d_][\w'’-]+")


class TopicWords:
  """Finds what a context is about: its words that are frequent here and rare across the corpus's groups.

  A word that fewer than three groups use comes after all others: a name seen once teaches the AV nothing.
  """

  def __init__(self, texts: Sequence[str]):
    """texts: one per group (a page); their number is what rarity is counted in."""
    self._groups = max(len(texts), 1)
    self._seen = collections.Counter(
      word for text in texts for word in {w.lower() for w in _WORD.findall(text)}
    )

  def rank(self, context: str) -> list[str]:
    """Distinct words of `context`, best first, as last written there; ties go to the later word."""
    counts, shown, last = collections.Counter(), {}, {}
    for place, match in enumerate(_WORD.finditer(context)):
      word = match.group().lower()
      counts[word] += 1
      shown[word], last[word] = match.group(), place
    rarity = lambda word: math.log((1 + self._groups) / (1 + self._seen[word]))
    score = lambda word: (self._seen[word] >= 3, math.sqrt(counts[word]) * rarity(word), last[word])
    return [shown[word] for word in sorted(counts, key=score, reverse=True) if len(word) > 3]


def last_words(context: str, n: int) -> str:
  """The last `n` whitespace-separated pieces of `context`, on one line."""
  return " ".join(context.split()[-n:])


def readout(
  tokenizer, context_ids: Sequence[int], next_tokens: Sequence[int], topics: TopicWords, settings
) -> str:
  """The readout teacher's explanation of one position.

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
  while True:
    features = [f"Next: {', '.join(guesses[: settings.next_tokens])}"] if guesses else []
    features += [f"About: {', '.join(words)}"] if words else []
    features.append(f'Ends: "{end}"')
    text = "\n\n".join(features)
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
