"""What RL presses explanations towards beside reconstruction: that they survive other words, and that they are true.

- In other words (`rl.reword`): the AR reads a share of the explanations in another order of words, or with synonyms.
  Reward and regression are on what it read, so a code that lives in order or choice of words earns less.
- True (`rl.false_claim_cost`): a claim about the context that the context contradicts costs reward (proposed by the NLA
  paper and left untested there).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Integer

from nla_jax.autoencoder.rewording import shuffle_words, substitute_words
from nla_jax.errors import NLAError
from nla_jax.evaluation import thesaurus
from nla_jax.evaluation.claims import parse, verdict
from nla_jax.run.run import Run

Texts = list[str | None]


def rewording(rl) -> Callable[[Texts, int], Texts] | None:
  """How explanations are said in other words, from the config's `rl`; None where they are not.

  Raises:
    NLAError: synonyms are wanted and WordNet is not installed.
  """
  if not rl.reword:
    return None
  synonyms = {} if rl.reword_by == "order" else thesaurus.load_synonyms()
  if synonyms is None:
    raise NLAError(
      f"config.rl.reword_by={rl.reword_by} needs WordNet's synonyms: {thesaurus.INSTALL}, or set "
      "config.rl.reword_by=order"
    )

  def reworded(texts: Texts, seed: int) -> Texts:
    if rl.reword_by == "order":
      return shuffle_words(texts, seed)
    others = substitute_words(texts, synonyms, seed=seed).texts
    if rl.reword_by == "synonyms":
      return others

    # Each text one way or the other: with both at once nearly nothing would be left to read.
    ordered = shuffle_words(texts, seed)
    first = np.random.default_rng((seed, 2)).random(len(texts)) < 0.5
    return [a if now else b for a, b, now in zip(ordered, others, first)]

  return reworded


def false_shares(run: Run) -> Callable[[Texts, np.ndarray], Float[np.ndarray, " texts"]]:
  """How much of an explanation its context contradicts, for explanations of a run's activations."""
  context_tokens = run.config.data.max_tokens

  def shares(texts: Texts, rows: Integer[np.ndarray, " texts"]) -> Float[np.ndarray, " texts"]:
    # A group of explanations has one context, and decoding it takes longest.
    contexts = {row: run.context(row, context_tokens) for row in set(rows.tolist())}
    found = [false_share(text, contexts[row]) for text, row in zip(texts, rows.tolist())]
    return np.array(found, np.float32)

  return shares


def false_share(text: str | None, context: str) -> float:
  """The share of an explanation's claims about its context that are false, in [0, 1]; 0 where it makes none.

  Args:
    text: the explanation; None where it did not parse, which costs the whole reward already.
    context: the document up to the activation's token.
  """
  # What the target expects next is no claim about the context, and has no verdict without its predictions.
  of_context = verdict.Context(context, article="", guesses=None, next="")
  verdicts = [one.claim.verdict for one in verdict.judged(parse.claims_of(text), of_context)]
  known = [one for one in verdicts if one is not None]
  return known.count(False) / len(known) if known else 0.0
