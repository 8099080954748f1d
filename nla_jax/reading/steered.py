"""What steering did: continuations and next tokens of each strength, beside the unsteered model and three controls."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from nla_jax.reading.edits import Unrelated
from nla_jax.reading.effect_chart import effect_chart

# What a vector was made from: the edit, and its controls.
EDIT, RANDOM, UNEDITED, UNRELATED = "edit", "random", "unedited", "unrelated"
UNSTEERED = "unsteered"
ARMS = (EDIT, RANDOM, UNEDITED, UNRELATED)
MEANING = {
  EDIT: "the edit",
  RANDOM: "a random vector of equal norm",
  UNEDITED: "the unedited reconstruction",
  UNRELATED: "an edit of an unrelated word",
}


@dataclasses.dataclass(frozen=True)
class NextToken:
  """One token after the prompt.

  Attributes:
    id: of the token.
    text: its characters.
    unsteered: its log-probability without steering, in nats.
    steered: with it.
  """

  id: int
  text: str
  unsteered: float
  steered: float


@dataclasses.dataclass(frozen=True)
class Arm:
  """What one vector at one strength did.

  Attributes:
    name: one of `ARMS`; `unsteered` of the model without a vector.
    strength: α.
    continuations: one for each sample.
    words: {word: log-probability of its first token after the prompt, in nats}.
    changes: {word: how much that is above the unsteered model's}.
    top: the likeliest token.
    rises: tokens whose probability rose most, first.
    falls: tokens whose probability fell most, first.
    kl: of the next token's distribution from the unsteered one's, in nats.
  """

  name: str
  strength: float
  continuations: list[str]
  words: dict[str, float]
  changes: dict[str, float]
  top: NextToken
  rises: list[NextToken]
  falls: list[NextToken]
  kl: float


@dataclasses.dataclass(frozen=True)
class Steered:
  """What steering by an edited explanation did.

  Attributes:
    prompt: what was continued, special tokens written out.
    position: index of the token whose activation was explained.
    positions: indices of the prompt's tokens that took the vector.
    where: `position`, `span` or `generated`.
    mode: `add` or `replace`.
    layer: K, 0-based; the vector enters after block K.
    explanation: that was read, or given.
    edited: the explanation with the edit.
    unrelated: the edit of an unrelated word.
    cosine: between what the AR rebuilds from the explanation and from the edited one.
    norm: ‖h‖ of the activation at `position`.
    tokens: {word: id of the token that stands for it}.
    unsteered: the model without a vector.
    arms: for each strength the edit and the three controls.
  """

  prompt: str
  position: int
  positions: list[int]
  where: str
  mode: str
  layer: int
  explanation: str
  edited: str
  unrelated: Unrelated
  cosine: float
  norm: float
  tokens: dict[str, int]
  unsteered: Arm
  arms: list[Arm]

  @property
  def strengths(self) -> list[float]:
    """Every α, in order."""
    return sorted({arm.strength for arm in self.arms})

  def arm(self, name: str, strength: float | None = None) -> Arm:
    """The arm of that name, at the largest strength where none is given. Raises KeyError where there is none."""
    # The strongest shows most clearly what a vector does.
    wanted = self.strengths[-1] if strength is None else strength
    for one in self.arms:
      if one.name == name and one.strength == wanted:
        return one
    raise KeyError(f"no arm {name!r} of strength {wanted}")

  def effect(self, name: str, towards: str, away: str) -> list[tuple[float, float]]:
    """(α, change of log p(towards) − log p(away) in nats) of one arm, by α."""
    found = [arm for arm in self.arms if arm.name == name]
    return sorted((one.strength, one.changes[towards] - one.changes[away]) for one in found)

  def to_json(self) -> dict[str, Any]:
    """Everything, as objects that `json` writes."""
    return dataclasses.asdict(self) | {"unrelated": self.unrelated._asdict()}

  def to_svg(self, words: Sequence[str] = ()) -> str:
    """Effect against α of the edit and its controls, as one SVG that can stand in a page.

    The effect is how much likelier the first word became than the second; without two words it is the KL divergence of
    the next token from the unsteered model's.

    Args:
      words: (towards, away), both scored; by default the first word that was edited in, and the one it replaced.
    """
    # An edit's own words stand first: the new one, then the one that it replaced.
    words = tuple(words) or tuple(self.tokens)[:2]
    if len(words) == 2:
      curves = {MEANING[name]: self.effect(name, *words) for name in ARMS}
      return effect_chart(curves, f"log p({words[0]}) − log p({words[1]}), change in nats")
    curves = {
      MEANING[name]: sorted((arm.strength, arm.kl) for arm in self.arms if arm.name == name)
      for name in ARMS
    }
    return effect_chart(curves, "KL from the unsteered next token, nats")
