"""What is left of the round trip when its explanations are said otherwise, under the live and under the fixed AR.

Two of the transforms that the suite `steganography` measures: quick enough for every evaluation. The sampled
explanations are changed, and nothing is sampled again. The order of words is drawn from the evaluation's seed. Without
a thesaurus the synonyms are left out, with a line that says so.
"""

from nla_jax.autoencoder.rewording import substitute_words
from nla_jax.evaluation import variants
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite
from nla_jax.evaluation.thesaurus import INSTALL
from nla_jax.progress import say

# Of each transform the keys under the live AR and under the fixed one.
_KEYS = {
  "words shuffled": ("shuffled_words", "shuffled_words_fixed"),
  "synonyms": ("synonyms", "synonyms_fixed"),
}


def run(subject: Subject) -> Measured:
  """Scores the same explanations with shuffled words, and with synonyms."""
  errors, numbers = {}, {}
  for name, keys in _KEYS.items():
    if variants.texts_of(subject, name) is None:
      say(f"eval: synonyms are left out, since no thesaurus is installed ({INSTALL})")
      continue

    # Both readers see the same words, so that what they keep of them can be compared.
    for key, reader in zip(keys, variants.readers(subject)):
      errors[key] = variants.errors_of(subject, name, reader)

  if "synonyms" in errors:
    synonyms = variants.material(subject).synonyms
    numbers["synonyms_share"] = substitute_words(subject.sampled.texts, synonyms).share
  return Measured(errors, numbers)


SUITE = Suite(run)
