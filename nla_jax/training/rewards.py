"""What an explanation is worth: how well the AR rebuilds the activation from it, less a penalty for its style."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from nla_jax.autoencoder.text import decode

REWARDS = ("mse", "cosine", "log")
FAILURE = -2.0  # as an orthogonal reconstruction; −ln 2 in log form
_GRAM = 3


def reconstruction_reward(
  errors: Float[np.ndarray, " samples"], failed: Bool[np.ndarray, " samples"], kind: str = "mse"
) -> Float[np.ndarray, " samples"]:
  """Reward of each explanation from its mse_nrm; −2 (−ln 2 in log form) where the explanation failed.

  Args:
    errors: mse_nrm, in [0, 4].
    failed: True where the answer does not parse, hits the length cap or overflows the AR.
    kind: `mse` is −error, `cosine` is 1 − error / 2, `log` is −ln(error).
  """
  errors = np.asarray(errors, np.float32)

  # A failed explanation must not score 0, which is the best there is.
  if kind == "log":
    return np.where(failed, -np.log(2.0), -np.log(np.maximum(errors, 1e-8))).astype(np.float32)
  reward = -errors if kind == "mse" else 1 - errors / 2
  return np.where(failed, FAILURE, reward).astype(np.float32)


def best_of_groups(
  errors: Float[np.ndarray, " samples"], fits: Bool[np.ndarray, " samples"], group: int
) -> Integer[np.ndarray, " groups"]:
  """The row of each group's explanation with the least error among those that fit; its first where none does."""
  # `argmin` would choose a NaN before any number.
  of_groups = np.where(fits & np.isfinite(errors), errors, np.inf).reshape(-1, group)
  return np.arange(len(of_groups)) * group + of_groups.argmin(1)


def repeated_share(text: str) -> float:
  """Share of a text's three-word sequences that occurred before in it, in [0, 1]."""
  words = text.split()
  grams = [tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1)]
  return 1 - len(set(grams)) / len(grams) if grams else 0.0


def non_ascii_share(text: str) -> float:
  """Share of a text's characters that are not ASCII, in [0, 1]."""
  return sum(not character.isascii() for character in text) / len(text) if text else 0.0


def style_penalty(
  texts: Sequence[str | None], lengths: Integer[np.ndarray, " samples"], rl
) -> Float[np.ndarray, " samples"]:
  """Reward lost for length above a target (per token), for repetition and for other scripts (per share).

  Args:
    texts: explanations; None, which has failed already, loses nothing more for repetition and script.
    lengths: tokens of each answer.
    rl: the config's `rl`.
  """
  penalty = rl.length_cost * np.maximum(np.asarray(lengths) - rl.length_target, 0)

  # Counting three-word sequences takes time at every step, so only where it costs something.
  if rl.repeat_cost or rl.non_ascii_cost:
    penalty = penalty + np.array([_share_penalty(text, rl) for text in texts])
  return penalty.astype(np.float32)


def _share_penalty(text: str | None, rl) -> float:
  if text is None:
    return 0.0
  return rl.repeat_cost * repeated_share(text) + rl.non_ascii_cost * non_ascii_share(text)


def truncate(texts: Sequence[str | None], tokenizer, seed: int) -> list[str | None]:
  """Each explanation, cut after a random number of its tokens (at least one), so that its first words carry most."""
  random = np.random.default_rng(seed)
  cut = []

  # One draw a text, whether it parses or not: the draws of the others then do not depend on it.
  for text, share in zip(texts, random.random(len(texts))):
    ids = [] if text is None else tokenizer(text, add_special_tokens=False)["input_ids"]
    keep = 1 + int(share * len(ids))
    cut.append(text if keep >= len(ids) else decode(tokenizer, ids[:keep]).strip())
  return cut
