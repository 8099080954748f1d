"""Signs that RL is going wrong while the reward still rises: collapse, babbling, drift, running to the cap."""

from collections.abc import Mapping

_QUIET = 20  # steps before the same alarm is given again
_LIMITS = {
  "parse_rate": (lambda x: x < 0.5, "fewer than half of the explanations parse"),
  "duplicates": (lambda x: x > 0.5, "more than half of the explanations are the same as another"),
  "capped": (lambda x: x > 0.3, "more than 30 % of the answers run into the length cap"),
  "kl": (lambda x: x > 1.0, "the AV is more than a nat a token from where it began"),
  "sampler_gap": (lambda x: x > 0.1, "sampler and trainer disagree by more than 0.1 nats a token"),
}


class CollapseAlarms:
  """Remembers the entropy at the start and which alarms were given lately."""

  def __init__(self):
    self._entropy, self._given, self._step = None, {}, 0

  def alarms(self, metrics: Mapping[str, float]) -> list[str]:
    """The alarms of one step's metrics as lines of text. The same alarm is repeated only after 20 steps."""
    self._step += 1
    found = {
      name: text
      for name, (wrong, text) in _LIMITS.items()
      if name in metrics and wrong(float(metrics[name]))
    }

    # Entropy is judged against the first step's: how many nats are healthy depends on the model and its prompt.
    if "entropy" in metrics:
      entropy = float(metrics["entropy"])
      self._entropy = entropy if self._entropy is None else self._entropy
      if entropy < 0.1 * self._entropy:
        found["entropy"] = (
          f"entropy fell to {entropy:.3f} nats a token from {self._entropy:.3f}: the AV is collapsing"
        )

    new = [name for name in found if self._step - self._given.get(name, -_QUIET) >= _QUIET]
    self._given |= dict.fromkeys(new, self._step)
    return [f"alarm: {found[name]} ({name} {float(metrics[name]):.3g})" for name in new]
