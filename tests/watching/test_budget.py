"""Half of the budget by score, half drawn: rates are unbiased whatever the score is, and time cuts both halves."""

import numpy as np
import pytest

from nla_jax.watching.budget import APART, choose, rate


def labels_and_scores(n=60):
  """A rare label that the score knows of, in a run of neighbours, and elsewhere."""
  labels = np.zeros(n, bool)
  labels[[5, 6, 7, 8, 30, 44]] = True
  scores = np.random.default_rng(0).random(n) + labels
  return labels, scores


@pytest.mark.parametrize("budget, cut", [(10, 10), (20, 20), (20, 7), (3, 3)])
def test_the_rate_is_unbiased_also_where_time_ran_out(budget, cut):
  labels, scores = labels_and_scores()
  found = []
  for seed in range(4000):
    chosen = choose(scores, budget, seed).first(cut)
    found.append(rate(chosen, labels[chosen.places]))
  error = np.std(found) / np.sqrt(len(found))
  assert abs(np.mean(found) - labels.mean()) < 4 * error
  # The naive mean is far off: the score prefers the label.
  naive = np.mean([labels[choose(scores, budget, s).places].mean() for s in range(200)])
  assert naive > 1.5 * labels.mean()


def test_tokens_by_score_stand_apart_and_halves_come_in_turn():
  _, scores = labels_and_scores()
  chosen = choose(scores, 20, 1)
  assert len(set(chosen.places.tolist())) == 20 and chosen.scored.sum() == 10
  taken = np.sort(chosen.places[chosen.scored])
  assert np.diff(taken).min() >= APART
  assert chosen.scored.tolist() == [True, False] * 10
  assert chosen.weights.sum() == pytest.approx(len(scores))


def test_without_a_score_all_are_drawn_and_a_small_transcript_is_explained_whole():
  chosen = choose(np.zeros(30), 8, 0)
  assert not chosen.scored.any() and len(chosen.places) == 8
  whole = choose(np.arange(5.0), 20, 0)
  assert sorted(whole.places.tolist()) == [0, 1, 2, 3, 4]
  labels = np.array([True, False, True, False, False])
  assert rate(whole, labels[whole.places]) == pytest.approx(0.4)


def test_a_stratum_without_an_explanation_leaves_the_rate_unknown():
  chosen = choose(np.arange(30.0), 1, 0)
  assert len(chosen.places) == 1 and np.isfinite(rate(chosen, [True]))
  assert np.isnan(rate(choose(np.arange(30.0), 4, 0).first(1), [True]))
  assert np.isnan(rate(choose(np.zeros(0), 4, 0), []))
