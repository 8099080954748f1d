"""What is left of the round trip when its explanations are said otherwise, under the live and under the fixed AR.

The sampled explanations are changed, and nothing is sampled again. The order of words is drawn from the evaluation's
seed. Without a thesaurus the synonyms are left out, with a line that says so.
"""

from nla_jax.autoencoder.rewording import shuffle_words, substitute_words
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import Measured, Suite
from nla_jax.evaluation.thesaurus import INSTALL, load_synonyms
from nla_jax.progress import say


def run(subject: Subject) -> Measured:
  """Scores the same explanations with shuffled words, and with synonyms."""
  texts = {"shuffled_words": shuffle_words(subject.sampled.texts, subject.seed)}
  numbers = {}

  synonyms = load_synonyms()
  if synonyms is None:
    say(f"eval: synonyms are left out, since no thesaurus is installed ({INSTALL})")
  else:
    texts["synonyms"], numbers["synonyms_share"] = substitute_words(subject.sampled.texts, synonyms)

  # Both readers see the same words, so that what they keep of them can be compared.
  errors = {key: subject.score(several) for key, several in texts.items()}
  fixed = {"shuffled_words": "shuffled_words_fixed", "synonyms": "synonyms_fixed"}
  if subject.fixed_critic is not None:
    for key, several in texts.items():
      errors[fixed[key]] = subject.score(several, subject.fixed_critic)
  return Measured(errors, numbers)


SUITE = Suite(run)
