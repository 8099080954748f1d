"""What an explanation is worth: how well the AR rebuilds the vector from it, less what its length and manner cost."""

from collections.abc import Sequence

import numpy as np

REWARDS = ("mse", "cosine", "log")
FAILURE = -2.0  # as an orthogonal reconstruction; −ln 2 in log form
_GRAM = 3


def reconstruction_reward(errors, failed, kind: str = "mse") -> np.ndarray:
  """Reward [n] of each explanation from its mse_nrm [n]; −2 (−ln 2 in log form) where it failed.

  A failed explanation (does not parse, hits the length cap, overflows the AR) must not score 0, the best there is.
  """
  errors = np.asarray(errors, np.float32)
  if kind == "log":
    return np.where(failed, -np.log(2.0), -np.log(np.maximum(errors, 1e-8))).astype(np.float32)
  reward = -errors if kind == "mse" else 1 - errors / 2
  return np.where(failed, FAILURE, reward).astype(np.float32)


def repeated_share(text: str) -> float:
  """Share of a text's three-word sequences that occurred before in it, in [0, 1]."""
  words = text.split()
  grams = [tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1)]
  return 1 - len(set(grams)) / len(grams) if grams else 0.0


def non_ascii_share(text: str) -> float:
  """Share of a text's characters that are not ASCII, in [0, 1]."""
  return sum(not character.isascii() for character in text) / len(text) if text else 0.0


def style_penalty(texts: Sequence[str | None], lengths: np.ndarray, rl) -> np.ndarray:
  """Reward [n] lost for length above a target (per token), for repetition and for other scripts (per share)."""
  cost = rl.length_cost * np.maximum(np.asarray(lengths) - rl.length_target, 0)
  if rl.repeat_cost or rl.non_ascii_cost:
    cost = cost + np.array(
      [
        0.0
        if text is None
        else rl.repeat_cost * repeated_share(text) + rl.non_ascii_cost * non_ascii_share(text)
        for text in texts
      ]
    )
  return cost.astype(np.float32)


def truncate(texts: Sequence[str | None], tokenizer, seed: int) -> list[str | None]:
  """Each explanation cut after a random number of its tokens (at least one), so that its first words carry most."""
  random = np.random.default_rng(seed)
  cut = []
  for text, share in zip(texts, random.random(len(texts))):
    ids = [] if text is None else tokenizer(text, add_special_tokens=False)["input_ids"]
    keep = 1 + int(share * len(ids))
    cut.append(
      text if keep >= len(ids) else tokenizer.decode(ids[:keep], skip_special_tokens=True).strip()
    )
  return cut
