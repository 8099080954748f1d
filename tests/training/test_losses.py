"""Losses against their formulas, written out literally."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.models.token_scores import TokenScores, token_scores
from nla_jax.training.losses import (
  PolicySettings,
  adapted_kl_weight,
  extremes,
  group_advantages,
  importance_weights,
  masked_mean,
  policy_loss,
  position_weights,
  sft_loss,
  varying,
)

RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(3, 7, 16)).astype(np.float32)
MATRIX = RNG.normal(size=(50, 16)).astype(np.float32)
TARGETS = RNG.integers(0, 50, (3, 7))


def _literal_scores(hidden, matrix, targets):
  logprobs = jax.nn.log_softmax(hidden @ matrix.T)
  chosen = jnp.take_along_axis(logprobs, targets[..., None], axis=-1)[..., 0]
  return TokenScores(chosen, -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1))


@pytest.mark.parametrize("chunk", [1, 4, 21, 512])
def test_token_scores_are_log_softmax_whatever_the_chunk_with_their_gradients(chunk):
  weights = RNG.normal(size=(2, 3, 7)).astype(np.float32)

  def loss(score):
    def total(hidden, matrix):
      scores = score(hidden, matrix, TARGETS)
      return jnp.sum(weights[0] * scores.logprob + weights[1] * scores.entropy), scores

    return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(HIDDEN, MATRIX)

  (_, scores), grads = loss(lambda *arguments: token_scores(*arguments, chunk=chunk))
  (_, expected), expected_grads = loss(_literal_scores)
  for found, wanted in zip(
    jax.tree.leaves((scores, grads)), jax.tree.leaves((expected, expected_grads))
  ):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_token_scores_survive_large_logits():
  scores = token_scores(HIDDEN * 100, MATRIX, TARGETS)
  assert np.isfinite(scores.logprob).all() and np.isfinite(scores.entropy).all()


def test_no_array_of_batch_length_vocabulary_exists():
  """In the compiled gradient, by the shapes of its program: a chunk of 4 is one token of each row, 3 · 50 logits."""
  loss = lambda hidden, matrix: jnp.sum(token_scores(hidden, matrix, TARGETS, chunk=4).logprob)
  text = jax.jit(jax.grad(loss, (0, 1))).lower(HIDDEN, MATRIX).compile().as_text()
  assert "[3,1,50]" in text
  assert not any(shape in text for shape in ("[21,50]", "[24,50]", "[3,7,50]", "[6,4,50]"))


def test_a_masked_mean_sees_only_what_is_unmasked():
  x, mask = (
    np.array([[1.0, 2.0, np.nan], [np.inf, 5.0, 7.0]]),
    np.array([[1, 1, 0], [0, 1, 1]], bool),
  )
  assert float(masked_mean(x, mask)) == pytest.approx(15 / 4)
  np.testing.assert_allclose(masked_mean(x, mask, axis=1), [1.5, 6.0])
  np.testing.assert_array_equal(masked_mean(x, np.zeros_like(mask), axis=1), [0.0, 0.0])


def test_sft_loss_is_the_mean_over_supervised_tokens_not_over_rows():
  scores = TokenScores(jnp.array([[-1.0, -2.0, -9.0], [-3.0, -9.0, -9.0]]), jnp.zeros((2, 3)))
  assert float(sft_loss(scores, np.array([[1, 1, 0], [1, 0, 0]], bool))) == pytest.approx(2.0)


def test_advantages_are_normalised_in_each_group_with_ddof_1():
  rewards = np.array([1.0, 2.0, 4.0, -1.0, -1.0, -1.0], np.float32)
  std = np.std([1.0, 2.0, 4.0], ddof=1) + 1e-6
  np.testing.assert_allclose(
    group_advantages(rewards, 3), [*((np.array([1, 2, 4]) - 7 / 3) / std), 0, 0, 0], atol=1e-6
  )


# A policy that is a table of logits: 2 answers of 3 tokens over 5 words, the second cut to 2 tokens.
LOGITS = RNG.normal(size=(2, 3, 5)).astype(np.float32)
ACTIONS = np.array([[0, 3, 2], [4, 1, 0]])
MASK = np.array([[1, 1, 1], [1, 1, 0]], bool)
ADVANTAGES = np.array([1.5, -0.5], np.float32)


def _scores(logits):
  logprobs = jax.nn.log_softmax(logits)
  chosen = jnp.take_along_axis(logprobs, ACTIONS[..., None], -1)[..., 0]
  return TokenScores(chosen, -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1))


OLD = np.asarray(_scores(LOGITS).logprob)
DIRECTION = np.eye(5)[ACTIONS] - np.asarray(jax.nn.softmax(LOGITS))  # d log π(action) / d logits
TOKEN_WEIGHT = (MASK / MASK.sum(1, keepdims=True) / 2)[
  ..., None
]  # mean over tokens, then over samples


def _loss(logits, old=OLD, reference=OLD, advantages=ADVANTAGES, **options):
  """The policy loss of the table; `options` are its weights and the settings, by name."""
  weights = {name: options.pop(name) for name in ("kl_weight", "importance") if name in options}
  settings = PolicySettings(**options)
  return policy_loss(_scores(logits), old, reference, advantages, MASK, settings, **weights)


def _gradient(**options):
  loss = lambda logits: _loss(logits, **options).loss
  return np.asarray(jax.grad(loss)(LOGITS))


def test_on_policy_the_gradient_is_reinforce():
  expected = -TOKEN_WEIGHT * ADVANTAGES[:, None, None] * DIRECTION
  np.testing.assert_allclose(_gradient(kl_weight=0.0), expected, atol=1e-6)


def test_the_k2_gradient_pulls_by_the_gap_to_the_reference():
  """k1's would be the weight times DIRECTION alone, whatever the reference."""
  reference = OLD - np.array([[0.3, -0.2, 0.0], [0.5, 0.1, 9.0]], np.float32)
  expected = TOKEN_WEIGHT * (0.25 * (OLD - reference))[..., None] * DIRECTION
  found = _gradient(
    reference=reference, advantages=np.zeros(2, np.float32), kl_weight=0.25, kl_kind="k2"
  )
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
  ("kind", "formula"),
  [
    ("k1", lambda gap: 0 * gap),
    ("k2", lambda gap: gap**2 / 2),
    ("k3", lambda gap: np.exp(-gap) - 1 + gap),
  ],
)
def test_kl_is_its_formula_in_the_loss_and_k3_in_the_log(kind, formula):
  """k1 is taken from the reward, so that the loss has none of it."""
  gap = np.array([[0.3, -0.2, 0.7], [-0.5, 0.1, 9.0]], np.float32)
  out = _loss(LOGITS, reference=OLD - gap, advantages=ADVANTAGES * 0, kl_weight=2.0, kl_kind=kind)
  expected, logged = (
    np.sum(TOKEN_WEIGHT[..., 0] * values) for values in (formula(gap), np.exp(-gap) - 1 + gap)
  )
  assert float(out.loss) == pytest.approx(2 * expected, rel=1e-4)
  assert float(out.kl) == pytest.approx(logged, rel=1e-4)
  assert float(_loss(LOGITS, kl_kind=kind).kl) == 0


def test_a_ratio_past_the_clip_gets_no_gradient_where_it_would_go_further():
  """Old log-probabilities set so that ratios are 1.5, 1.1, 0.5 (advantage > 0) and 1.5, 0.5 (advantage < 0)."""
  ratio = np.array([[1.5, 1.1, 0.5], [1.5, 0.5, 1.0]], np.float32)
  found = _gradient(old=OLD - np.log(ratio), kl_weight=0.0)
  moves = np.array([[0, 1, 1], [1, 0, 0]])[..., None]
  expected = -TOKEN_WEIGHT * moves * (ratio * ADVANTAGES[:, None])[..., None] * DIRECTION
  np.testing.assert_allclose(found, expected, atol=1e-6)
  out = _loss(LOGITS, old=OLD - np.log(ratio))
  assert float(out.clip_fraction) == pytest.approx((2 / 3 + 1) / 2)
  assert float(out.ratio_max.max()) == pytest.approx(1.5, rel=1e-5)


def test_the_entropy_bonus_raises_entropy():
  gradient = _gradient(advantages=ADVANTAGES * 0, kl_weight=0.0, entropy_weight=1.0)
  mean = lambda logits: float(np.sum(TOKEN_WEIGHT[..., 0] * np.asarray(_scores(logits).entropy)))
  assert mean(LOGITS - 0.1 * gradient) > mean(LOGITS)


def test_mean_and_leave_one_out_advantages_are_their_formulas():
  rewards = np.array([1.0, 2.0, 4.0, -1.0, -1.0, -1.0], np.float32)
  np.testing.assert_allclose(
    group_advantages(rewards, 3, "mean"), [*(np.array([1, 2, 4]) - 7 / 3), 0, 0, 0], atol=1e-6
  )
  np.testing.assert_allclose(
    group_advantages(rewards, 3, "rloo"), [1 - 3, 2 - 2.5, 4 - 1.5, 0, 0, 0], atol=1e-6
  )


def test_batch_advantages_have_one_scale_for_all_groups():
  rewards = np.array([1.0, 2.0, 4.0, -1.0, -1.0, -1.5, 3.0, 3.0, 3.0], np.float32)
  centred = (rewards.reshape(3, 3) - rewards.reshape(3, 3).mean(1, keepdims=True)).reshape(-1)
  found = group_advantages(rewards, 3, "batch")
  np.testing.assert_allclose(found, centred / (np.std(centred, ddof=1) + 1e-6), rtol=1e-5)

  # Without the group that does not vary it is the deviation of the other two; of one group alone it is grpo.
  counted = varying(rewards, 3)
  assert counted.tolist() == [True] * 6 + [False] * 3
  expected = centred / (np.std(centred[:6], ddof=1) + 1e-6)
  np.testing.assert_allclose(group_advantages(rewards, 3, "batch", counted), expected, rtol=1e-5)
  one = [group_advantages(rewards[:3], 3, kind) for kind in ("batch", "grpo")]
  np.testing.assert_allclose(*one, rtol=1e-5)


def test_rewards_that_differ_by_rounding_do_not_vary():
  assert varying(np.array([0.5, 0.5 + 1e-7, 0.5, 0.51], np.float32), 2).tolist() == [
    False,
    False,
    True,
    True,
  ]
  assert np.isfinite(group_advantages(np.ones(4, np.float32), 2, "batch", np.zeros(4, bool))).all()


def test_on_policy_cispo_has_the_gradient_of_ppo():
  np.testing.assert_allclose(_gradient(loss="cispo"), _gradient(loss="ppo"), atol=1e-7)


def test_cispo_bounds_the_weight_of_a_token_and_drops_none():
  """The ratios of the test of PPO's clip, where three of the five tokens get no gradient."""
  ratio = np.array([[1.5, 1.1, 0.5], [1.5, 0.5, 1.0]], np.float32)
  options = dict(old=OLD - np.log(ratio), kl_weight=0.0, clip=0.2, clip_high=0.4)
  weight = np.clip(ratio, 0.8, 1.4) * ADVANTAGES[:, None]
  expected = -TOKEN_WEIGHT * weight[..., None] * DIRECTION
  np.testing.assert_allclose(_gradient(loss="cispo", **options), expected, atol=1e-6)


def test_the_tapered_kl_counts_a_half_after_its_tokens():
  np.testing.assert_allclose(position_weights(5, 2.0), [1, 2 / 3, 1 / 2, 2 / 5, 1 / 3], rtol=1e-6)
  reference = OLD - np.array([[0.3, -0.2, 0.6], [0.5, 0.1, 9.0]], np.float32)
  options = dict(reference=reference, advantages=np.zeros(2, np.float32), kl_weight=0.25)
  pull = 0.25 * (OLD - reference) * np.array([1, 2 / 3, 1 / 2])
  expected = TOKEN_WEIGHT * pull[..., None] * DIRECTION
  np.testing.assert_allclose(_gradient(kl_taper=2.0, **options), expected, atol=1e-6)
  # What is reported stays a distance.
  assert float(_loss(LOGITS, kl_taper=2.0, **options).kl) == float(_loss(LOGITS, **options).kl)


@pytest.mark.parametrize("average", ["sample", "token"])
def test_samples_without_tokens_are_left_out_of_the_average(average):
  """The loss and the gradient are those of a batch that never had them."""
  mask, options = MASK & np.array([[True], [False]]), dict(average=average, drop_empty=True)
  settings = PolicySettings(**options)

  def loss(logits, rows):
    scores = TokenScores(*(x[rows] for x in _scores(logits)))
    given = (OLD[rows], OLD[rows] - 0.1, ADVANTAGES[rows], mask[rows], settings)
    return policy_loss(scores, *given).loss

  found, alone = (
    jax.value_and_grad(loss)(LOGITS, rows) for rows in (np.array([0, 1]), np.array([0]))
  )
  assert float(found[0]) == pytest.approx(float(alone[0]), rel=1e-6)
  np.testing.assert_allclose(found[1], alone[1], atol=1e-7)
  assert np.abs(found[1][0]).max() > 0 and not found[1][1].any()


def test_the_upper_bound_of_the_ratio_can_be_wider_than_the_lower():
  ratio = np.array([[1.3, 1.5, 0.7], [0.7, 1.0, 1.0]], np.float32)
  found = _gradient(old=OLD - np.log(ratio), kl_weight=0.0, clip=0.2, clip_high=0.4)
  moves = np.array([[1, 0, 1], [0, 1, 0]])[
    ..., None
  ]  # 1.3 is within 1.4; 0.7 with a negative advantage is clipped
  expected = -TOKEN_WEIGHT * moves * (ratio * ADVANTAGES[:, None])[..., None] * DIRECTION
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_dual_clip_bounds_the_loss_of_unlikely_tokens_with_negative_advantage():
  ratio = np.array([[9.0, 1.0, 1.0], [9.0, 2.0, 1.0]], np.float32)
  options = dict(kl_weight=0.0, dual_clip=3.0)
  moves = np.array([[0, 1, 1], [0, 1, 0]])[
    ..., None
  ]  # 9 > 3 with A < 0: no gradient; 2 < 3 keeps it
  expected = -TOKEN_WEIGHT * moves * (ratio * ADVANTAGES[:, None])[..., None] * DIRECTION
  np.testing.assert_allclose(_gradient(old=OLD - np.log(ratio), **options), expected, atol=1e-6)


def test_importance_weights_scale_the_policy_term_and_are_capped():
  sampler = OLD - np.log(np.array([[0.5, 1.0, 5.0], [1.5, 1.0, 1.0]], np.float32))
  weights = importance_weights(OLD, sampler, 2.0)
  np.testing.assert_allclose(weights, [[0.5, 1, 2], [1.5, 1, 1]], rtol=1e-5)
  expected = -TOKEN_WEIGHT * np.asarray(weights)[..., None] * ADVANTAGES[:, None, None] * DIRECTION
  np.testing.assert_allclose(_gradient(kl_weight=0.0, importance=weights), expected, atol=1e-6)


def test_averaged_over_tokens_a_long_answer_weighs_more():
  expected = -(MASK / MASK.sum())[..., None] * ADVANTAGES[:, None, None] * DIRECTION
  np.testing.assert_allclose(_gradient(kl_weight=0.0, average="token"), expected, atol=1e-6)


def test_k1_is_left_to_the_reward():
  reference = OLD - 0.4
  np.testing.assert_allclose(
    _gradient(reference=reference, kl_weight=9.0, kl_kind="k1"), _gradient(kl_weight=0.0), atol=1e-6
  )


def test_extremes_are_the_most_and_the_least_rewarded_of_each_group():
  rewards = np.array([0.1, 0.9, 0.5, 0.4, 0.8, 0.2, 3.0, 3.0, 3.0, 3.0, 2.0, 4.0], np.float32)
  assert extremes(rewards, 6, 2).tolist() == [0, 1, 10, 11]
  assert extremes(rewards, 6, 4).tolist() == [0, 1, 4, 5, 6, 9, 10, 11]
  assert extremes(rewards, 6, 6).tolist() == [*range(12)]


def test_the_kl_weight_goes_towards_its_target_a_little_at_a_time():
  assert adapted_kl_weight(0.01, kl=0.05, target=0.05) == pytest.approx(0.01)
  assert adapted_kl_weight(0.01, kl=9.0, target=0.05) == pytest.approx(0.01 * 1.02)
  assert adapted_kl_weight(0.01, kl=0.0, target=0.05) == pytest.approx(0.01 * 0.98)


def test_the_policy_gradient_is_the_numerical_one_with_everything_on():
  """Against central differences in float64."""
  with jax.enable_x64(True):
    old = np.asarray(OLD, np.float64) + np.array([[0.1, -0.05, 0.3], [-0.15, 0.1, 0.0]])
    sampler, reference = old + 0.05, old - 0.2
    logits = np.asarray(LOGITS, np.float64)

    def loss(x):
      return _loss(
        x,
        old=old,
        reference=reference,
        advantages=np.asarray(ADVANTAGES, np.float64),
        clip=0.2,
        clip_high=0.3,
        dual_clip=3.0,
        importance=importance_weights(old, sampler, 1.5),
        kl_weight=0.3,
        kl_kind="k3",
        entropy_weight=0.1,
        average="token",
      ).loss

    found, expected = np.asarray(jax.grad(loss)(logits)), np.zeros_like(logits)
    for index in np.ndindex(*logits.shape):
      step = np.zeros_like(logits)
      step[index] = 1e-5
      expected[index] = (loss(logits + step) - loss(logits - step)) / 2e-5
  np.testing.assert_allclose(found, expected, atol=1e-6)
