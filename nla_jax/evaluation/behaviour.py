"""What the target does, before anyone asks what explanations say of it: the first rung of evidence."""

from collections.abc import Sequence

import numpy as np

from nla_jax.errors import NLAError
from nla_jax.evaluation.findings import Gate
from nla_jax.evaluation.intervals import Estimate, bootstrap_mean
from nla_jax.evaluation.items.multiple_choice import LETTERS
from nla_jax.evaluation.judges.frozen_target import FrozenTarget
from nla_jax.evaluation.judges.judge import Frame, Question
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import LeftOutError

_AS_IT_IS = Frame("{text}")


def letter_shares(subject: Subject, texts: Sequence[str]) -> np.ndarray:
  """[n, 4] the target's probabilities of the answers A to D behind each text, as shares of the four.

  Raises:
    LeftOutError: there is no base model to ask.
  """
  try:
    target = subject.nla.whole_target
  except NLAError as error:
    raise LeftOutError(str(error)) from None

  # By likelihood, not by what it would write: a small model may write no letter at all.
  reader = FrozenTarget(target, subject.nla.pair.tokenizer)
  found = np.stack(reader.logprobs([Question(text, LETTERS) for text in texts], _AS_IT_IS))
  shares = np.exp(found - found.max(axis=1, keepdims=True))
  return shares / shares.sum(axis=1, keepdims=True)


def estimate(values: np.ndarray, groups: Sequence[str], subject: Subject) -> Estimate:
  """The mean of values [n] with its interval over groups [n]."""
  samples = subject.settings.bootstrap_samples
  return bootstrap_mean(values, np.array(groups), samples=samples, seed=subject.seed)


def shown(name: str, gap: Estimate) -> Gate:
  """Whether the target shows a behaviour: the interval of a paired difference lies above zero."""
  low = gap.ci95[0] if gap.ci95 else -np.inf
  detail = f"a paired difference of {gap.value:+.3f}, from {low:+.3f} on"
  return Gate(f"behaviour, {name}", bool(low > 0), detail)
