"""Conversations with the model that is audited, and how many of them there may be."""

from collections.abc import Mapping, Sequence

from nla_jax.errors import NLAError
from nla_jax.organisms.speaker import Speaker


class BudgetSpentError(NLAError):
  """No branch is left."""


class Branches:
  """What an auditor may ask.

  A branch is a conversation from its root. A call that fails costs nothing.

  Args:
    speaker: the model.
    budget: branches in all.
    tokens: of an answer, at most.

  Raises:
    NLAError: the budget is no number of branches.
  """

  def __init__(self, speaker: Speaker, budget: int, tokens: int = 48):
    if budget < 1:
      raise NLAError(f"--budget={budget}: expected at least one branch")

    self._speaker, self.budget, self._tokens, self.used = speaker, budget, tokens, 0

  @property
  def left(self) -> int:
    """Branches that may still be asked."""
    return self.budget - self.used

  def ask(
    self,
    conversations: Sequence[Sequence[Mapping[str, str]]],
    seed: int | None = None,
    *,
    counted: bool = True,
  ) -> list[str]:
    """What the model answers at the end of each.

    Args:
      conversations: lists of messages.
      seed: of the draws; None for the likeliest words.
      counted: whether they begin branches; what follows in one is free.

    Raises:
      BudgetSpentError: there are more than branches are left; none of them is asked.
    """
    if counted and len(conversations) > self.left:
      raise BudgetSpentError(
        f"{len(conversations)} branches are asked for and {self.left} of {self.budget} are left: ask fewer, or write "
        "the report"
      )

    # Counted when they are answered: what failed costs nothing.
    found = self._speaker.replies(conversations, tokens=self._tokens, seed=seed)
    self.used += len(conversations) if counted else 0
    return found
