"""A second measure of RL: held-out activations are looked at now and then, and the best parameters seen are kept.

The reward is the AR's own judgement, and the AR learns the AV's language. An AR that stays as SFT left it (the fixed
critic) shows how much of a gain others could read.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from nla_jax.autoencoder.fve import baseline_variance
from nla_jax.progress import say
from nla_jax.training.learner import Learner, States, frozen
from nla_jax.training.watch import watch_pair

_KEY = 2**31 - 1  # folded into the run's key: no step of a run has this number
_NAMES = {"duplicates": "duplicates_held_out"}  # the curve has the training batch's own
MODELS = ("av", "ar")


class Lookout:
  """Looks at held-out activations every `rl.watch_every` steps, before the first step, and after the last.

  Nothing of training depends on it: it draws from a stream of its own, the same at every look.

  Args:
    learner: the run's.
    ar_params: of the AR after SFT, which are copied; the fixed critic.
    vectors: [n, d_model] raw held-out activations; None where nothing is watched.
    seed: of the run.
  """

  def __init__(
    self,
    learner: Learner,
    ar_params: Any,
    vectors: Float[np.ndarray, "n d_model"] | None,
    seed: int,
  ):
    self._learner, self._settings = learner, learner.settings
    if not self._settings.watch_every:
      return
    self._given = (
      frozen(ar_params, learner.pair.verbalizer.dtype),
      vectors,
      jax.random.fold_in(jax.random.key(seed), _KEY),
      baseline_variance(vectors),
    )

  @property
  def nothing_kept(self) -> dict[str, float]:
    """What a run's plain values say of the best parameters before the first look; step -1 is none."""
    return {"kept_step": -1, "kept_value": 0.0} if self._settings.keep == "best" else {}

  def look(
    self, step: int, states: States, kept: dict[str, float]
  ) -> tuple[States, dict[str, float], dict[str, float]]:
    """The states with the best parameters so far, what is said of them, and the curve's metrics where it is time.

    Args:
      step: updates made.
      states: with `best` in it where the best parameters are kept.
      kept: from the look before, or `nothing_kept`.
    """
    every = self._settings.watch_every
    if not every or (step % every and step != self._settings.steps):
      return states, kept, {}

    # 1. What is seen, and how long looking took: it is not part of training.
    begun = time.time()
    params = {name: self._learner.params(states, name) for name in MODELS}
    seen = watch_pair(self._learner.pair, params, *self._given)
    seen = {_NAMES.get(name, name): value for name, value in seen.items()}
    seen["seconds_watch"] = time.time() - begun

    # 2. The parameters, if none were better. A number that is not one is never the best.
    value = seen[self._settings.keep_by]
    first = kept.get("kept_step") == -1
    if kept and (value > kept["kept_value"] or (first and value == value)):
      # The former best goes first: there is never a third copy.
      states.pop("best")
      states["best"] = {name: jax.tree.map(jnp.copy, states[name].params) for name in MODELS}
      kept = {"kept_step": step, "kept_value": value}
    return states, kept, seen | kept

  def result(self, states: States, kept: dict[str, float]) -> dict[str, Any]:
    """The parameters that the run ends with: the last ones, or the best ones that were seen."""
    if kept.get("kept_step", -1) == -1:
      return {name: self._learner.params(states, name) for name in MODELS}

    say(
      f"rl: kept the parameters of step {kept['kept_step']}, {self._settings.keep_by} {kept['kept_value']:.3f}"
    )
    return {name: self._learner.whole(states["best"][name], name) for name in MODELS}
