"""Rewards, what they cost, and the alarms beside them."""

import types

import numpy as np
import pytest

from nla_jax.training.alarms import CollapseAlarms
from nla_jax.training.rewards import (
  best_of_groups,
  non_ascii_share,
  reconstruction_reward,
  repeated_share,
  style_penalty,
  truncate,
)


@pytest.mark.parametrize(
  ("kind", "failure"), [("mse", -2.0), ("cosine", -2.0), ("log", -np.log(2))]
)
def test_a_failure_scores_no_better_than_words_that_tell_nothing(kind, failure):
  """As an orthogonal reconstruction (error 2), or worse; far from 0, the best there is."""
  errors = np.linspace(0, 2, 9).astype(np.float32)
  rewards = np.asarray(reconstruction_reward(errors, np.zeros(9, bool), kind))
  failed = np.asarray(reconstruction_reward(errors, np.ones(9, bool), kind))
  np.testing.assert_allclose(failed, failure)
  assert (
    (np.diff(rewards) < 0).all()
    and (rewards >= failure - 1e-6).all()
    and (rewards[:-1] > failure).all()
  )


def test_rewards_are_their_formulas():
  errors, fine = np.array([0.0, 0.5, 2.0], np.float32), np.zeros(3, bool)
  np.testing.assert_allclose(reconstruction_reward(errors, fine, "mse"), [0, -0.5, -2])
  np.testing.assert_allclose(reconstruction_reward(errors, fine, "cosine"), [1, 0.75, 0])
  np.testing.assert_allclose(
    reconstruction_reward(errors, fine, "log"), -np.log([1e-8, 0.5, 2]), rtol=1e-5
  )


def test_the_best_of_a_group_is_the_least_error_among_those_that_fit():
  errors = np.array([0.3, 0.1, 0.2, 0.5, 0.4, 0.6, 0.0, 0.0, 0.0])
  fits = np.array([1, 0, 1, 1, 1, 1, 0, 0, 0], bool)
  assert best_of_groups(errors, fits, 3).tolist() == [2, 4, 6]


def test_an_error_that_is_no_number_is_never_the_best():
  errors = np.array([np.nan, 1.5, 0.5, np.nan, np.inf, 3.0], np.float32)
  assert best_of_groups(errors, np.ones(6, bool), 3).tolist() == [2, 5]


def test_repetition_and_other_scripts_are_shares():
  assert repeated_share("a b c a b c") == pytest.approx(1 / 4) and repeated_share("a b") == 0
  assert non_ascii_share("ab") == 0 and non_ascii_share("aé") == 0.5 and non_ascii_share("") == 0


def test_style_costs_what_the_config_says():
  rl = types.SimpleNamespace(length_cost=0.1, length_target=10, repeat_cost=2.0, non_ascii_cost=4.0)
  cost = style_penalty(["a b c a b c", "aé", None], np.array([5, 12, 20]), rl)
  np.testing.assert_allclose(cost, [2 / 4, 0.2 + 2, 1.0], rtol=1e-6)


class Words:
  """A tokenizer of blanks."""

  def __call__(self, text, add_special_tokens):
    return {"input_ids": text.split()}

  def decode(self, ids, skip_special_tokens):
    return " ".join(ids)


def test_truncated_texts_are_beginnings_of_every_length_and_the_same_for_a_seed():
  text = " ".join(map(str, range(8)))
  cut = truncate([text] * 200 + [None], Words(), seed=1)
  assert cut[-1] is None and cut == truncate([text] * 200 + [None], Words(), seed=1)
  assert all(text.startswith(one) and one for one in cut[:-1])
  assert {len(one.split()) for one in cut[:-1]} == set(range(1, 9))


def test_alarms_are_given_once_and_again_after_a_while():
  watch = CollapseAlarms()
  healthy = {"parse_rate": 0.95, "duplicates": 0.0, "capped": 0.01, "kl": 0.02, "entropy": 1.4}
  assert watch.alarms(healthy) == []
  found = watch.alarms({**healthy, "parse_rate": 0.2, "entropy": 0.05})
  assert len(found) == 2 and "parse" in found[0] and "collapsing" in found[1]
  assert watch.alarms({**healthy, "parse_rate": 0.2}) == []
  for _ in range(20):
    watch.alarms(healthy)
  assert len(watch.alarms({**healthy, "parse_rate": 0.2})) == 1
