"""Draws are the model's own distribution, one stream a sample, and their log-probabilities are the trainer's."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.decoding import loop
from nla_jax.decoding.draw import draw
from nla_jax.decoding.explanations import prefill, sample
from nla_jax.decoding.loop import Draws, Sampling
from nla_jax.decoding.weights import decode_copy
from nla_jax.models.lora import Lora, adapter_params, variables
from nla_jax.models.parameters import as_base, transformer, unembedding
from nla_jax.models.token_scores import token_scores
from nla_jax.models.verbalizer import Verbalizer, verbalizer_params

BEFORE, AFTER = jnp.array([7, 8, 9], jnp.int32), jnp.array([42, 3, 4], jnp.int32)
NEVER = -1  # a stop token that is no word, so that answers run to the cap


@pytest.fixture(scope="module")
def av(tiny_architecture, tiny_params):
  """(model, params)."""
  return Verbalizer(tiny_architecture, 5.0), {"transformer": tiny_params}


@pytest.fixture(scope="module")
def vectors():
  return np.random.default_rng(1).normal(size=(8, 32)).astype(np.float32)


def _sample(av, vectors, ids, *, stop_id=NEVER, max_new_tokens=6, temperature=1.0, **options):
  model, params = av
  sampling = Sampling(stop_ids=(stop_id,), max_new_tokens=max_new_tokens, **options)
  draws = Draws(jax.random.key(3), jnp.asarray(ids, jnp.int32), temperature)
  vectors = jnp.asarray(vectors)
  return sample(params, BEFORE, AFTER, vectors, draws, model=model, sampling=sampling)


def _states(av, vectors, tokens):
  """Hidden state before each answered token, by the trainer's forward."""
  model, params = av
  hidden = jax.jit(lambda *arguments: model.apply(variables(params), *arguments))(
    BEFORE, AFTER, vectors, tokens
  )
  return hidden, unembedding(transformer(params))


def _far_from(counts, probabilities):
  """How many standard deviations the χ² statistic is above its mean, over tokens expected at least 5 times."""
  expected = counts.sum() * probabilities
  kept = expected >= 5
  counts = np.append(counts[kept], counts[~kept].sum())
  expected = np.append(expected[kept], max(expected[~kept].sum(), 1e-9))
  if expected[-1] < 5:
    counts, expected = counts[:-1], expected[:-1]
  freedom = len(counts) - 1
  return (np.sum((counts - expected) ** 2 / expected) - freedom) / np.sqrt(2 * freedom)


def _adapted(av, dtype):
  """The AV with trained adapters on it as a frozen base, in which nothing is copied for the loop."""
  (model, params), lora = av, Lora(4, 8.0)
  adapters = adapter_params(model.architecture, lora, jax.random.key(0))
  adapters = jax.tree.map(lambda x: x + 0.1, adapters)
  base = as_base(jax.tree.map(jnp.copy, params["transformer"]))
  return model.clone(lora=lora, dtype=dtype), verbalizer_params(base, 32, "scalar", adapters)


def test_of_a_frozen_base_the_token_loop_copies_nothing(av):
  _, params = _adapted(av, jnp.bfloat16)
  copies = decode_copy(params, jnp.bfloat16)
  assert all(map(operator.is_, jax.tree.leaves(copies["base"]), jax.tree.leaves(params["base"])))
  # An update donates the adapters, so they are.
  adapters = jax.tree.leaves(params["transformer"])
  assert not any(map(operator.is_, jax.tree.leaves(copies["transformer"]), adapters))


@pytest.mark.parametrize(("temperature", "adapted"), [(1.0, False), (0.7, False), (0.7, True)])
def test_the_samplers_logprobs_are_the_trainers(av, vectors, temperature, adapted):
  av = _adapted(av, jnp.float32) if adapted else av
  rollout = _sample(av, vectors, range(8), temperature=temperature)
  hidden, matrix = _states(av, vectors, rollout.tokens)
  scores = token_scores(hidden / temperature, matrix, rollout.tokens)
  mask = np.arange(6)[None] < np.asarray(rollout.lengths)[:, None]
  np.testing.assert_allclose(
    np.asarray(rollout.logprobs)[mask], np.asarray(scores.logprob)[mask], atol=2e-4
  )
  assert not np.any(np.asarray(rollout.logprobs)[~mask])


def test_first_tokens_follow_the_models_distribution(av, vectors):
  """8,192 ids of one activation."""
  n = 8192
  rollout = _sample(av, np.tile(vectors[:1], (n, 1)), range(n), max_new_tokens=1)
  hidden, matrix = _states(av, vectors[:1], rollout.tokens[:1])
  probabilities = np.asarray(jax.nn.softmax(hidden[0, 0] @ matrix.T), np.float64)
  counts = np.bincount(np.asarray(rollout.tokens)[:, 0], minlength=300)
  assert _far_from(counts, probabilities) < 4
  assert (
    _far_from(counts, probabilities**0.8 / np.sum(probabilities**0.8)) > 10
  )  # another temperature is noticed


def test_second_tokens_follow_the_models_distribution_given_the_first(av, vectors):
  """Draws of successive steps are independent: among one first token, the second has the model's distribution."""
  n = 8192
  tokens = np.asarray(_sample(av, np.tile(vectors[:1], (n, 1)), range(n), max_new_tokens=2).tokens)
  first = np.bincount(tokens[:, 0]).argmax()
  hidden, matrix = _states(av, vectors[:1], np.array([[first, 0]], np.int32))
  probabilities = np.asarray(jax.nn.softmax(hidden[0, 1] @ matrix.T), np.float64)
  assert _far_from(np.bincount(tokens[tokens[:, 0] == first, 1], minlength=300), probabilities) < 4


@pytest.mark.parametrize("vocabulary", [11, 256, 700])
def test_draw_is_exact_over_blocks_of_the_vocabulary(vocabulary):
  """A grid of uniform numbers hits each token in proportion to its probability, and never one of weight zero."""
  logits = np.random.default_rng(0).normal(size=vocabulary).astype(np.float32) * 2
  logits[[0, vocabulary // 2, vocabulary - 1]] = -np.inf
  n = 20000
  uniform = np.append(np.arange(n) / n, np.float32(1 - 2**-24)).astype(np.float32)
  token, logprob = jax.jit(draw)(jnp.broadcast_to(logits, (n + 1, vocabulary)), uniform)
  probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
  counts = np.bincount(np.asarray(token), minlength=vocabulary)
  assert counts.shape == (vocabulary,) and not counts[probabilities == 0].any()
  np.testing.assert_allclose(counts, (n + 1) * probabilities, atol=3)
  np.testing.assert_allclose(
    logprob, np.asarray(jax.nn.log_softmax(logits))[np.asarray(token)], atol=1e-4
  )


def test_a_draw_depends_on_its_id_and_not_on_its_batch(av, vectors):
  ids = np.arange(100, 108)
  together = _sample(av, vectors, ids)
  alone = _sample(av, vectors[5:6], ids[5:6])
  np.testing.assert_array_equal(alone.tokens[0], together.tokens[5])
  order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
  np.testing.assert_array_equal(
    _sample(av, vectors[order], ids[order]).tokens, together.tokens[order]
  )
  assert np.any(np.asarray(_sample(av, vectors, ids + 50).tokens) != np.asarray(together.tokens))


def test_greedy_takes_the_likeliest_token_of_each_step(av, vectors):
  rollout = _sample(av, vectors, range(8), greedy=True)
  hidden, matrix = _states(av, vectors, rollout.tokens)
  logits = hidden @ matrix.T
  np.testing.assert_array_equal(rollout.tokens, jnp.argmax(logits, axis=-1))
  np.testing.assert_allclose(
    rollout.logprobs, jnp.max(jax.nn.log_softmax(logits), axis=-1), atol=2e-4
  )
  np.testing.assert_array_equal(
    rollout.tokens, _sample(av, vectors, range(50, 58), greedy=True).tokens
  )


def test_an_answer_ends_with_its_stop_token(av, vectors):
  free = _sample(av, vectors, range(8), greedy=True)
  stop = int(free.tokens[0, 2])
  rollout = _sample(av, vectors, range(8), greedy=True, stop_id=stop)
  first = [list(row).index(stop) if stop in row else None for row in np.asarray(free.tokens)]
  assert first[0] is not None and None in first, (
    "this test needs answers with and without the stop token"
  )
  for row, index in enumerate(first):
    length = 6 if index is None else index + 1
    assert int(rollout.lengths[row]) == length and bool(rollout.finished[row]) == (
      index is not None
    )
    np.testing.assert_array_equal(rollout.tokens[row, :length], free.tokens[row, :length])
    np.testing.assert_array_equal(rollout.tokens[row, length:], stop)
    np.testing.assert_array_equal(rollout.logprobs[row, length:], 0)


def test_an_answer_cut_by_the_cap_is_not_finished(av, vectors):
  rollout = _sample(av, vectors, range(8))
  assert not rollout.finished.any()
  np.testing.assert_array_equal(rollout.lengths, 6)


def _assert_same_answers(found, expected):
  """Token for token; log-probabilities to the rounding of sums of another length."""
  for name in ("tokens", "lengths", "finished"):
    np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
  np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-5)


@pytest.mark.parametrize("bucket", [1, 2, 5, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_answers_do_not_depend_on_the_sizes_of_the_cache(av, vectors, bucket, dtype):
  model, params = av
  av = model.clone(dtype=jnp.dtype(dtype)), params
  whole = _sample(av, vectors, range(8), max_new_tokens=20, bucket=20)
  _assert_same_answers(_sample(av, vectors, range(8), max_new_tokens=20, bucket=bucket), whole)


def test_the_cache_doubles_until_the_cap():
  def sizes(cap: int, bucket: int) -> list[int]:
    return Sampling(stop_ids=(NEVER,), max_new_tokens=cap, bucket=bucket).cache_sizes

  assert sizes(48, 64) == [48] and sizes(64, 64) == [64]
  assert sizes(150, 64) == [64, 128, 150] and sizes(5, 1) == [1, 2, 4, 5]


def test_rows_that_go_on_are_the_same_in_half_of_the_batch(av, vectors, monkeypatch):
  """26 of 32 greedy answers end within 8 tokens, 6 never; two halvings leave 8 rows."""
  options = {"max_new_tokens": 64, "greedy": True}
  free = np.asarray(_sample(av, vectors, range(8), **options).tokens)
  stop, early = next(
    (stop, row)
    for row in range(8)
    for stop in free[row, :8]
    if any(stop not in one for one in free)
  )
  never = next(row for row in range(8) if stop not in free[row])
  rows = vectors[np.random.default_rng(0).permutation([early] * 26 + [never] * 6)]
  halved, halve = [], loop._halved
  monkeypatch.setattr(
    loop, "_halved", lambda state: halved.append(state.token.shape[0]) or halve(state)
  )
  found = _sample(av, rows, range(32), stop_id=int(stop), bucket=8, **options)
  assert halved == [32, 16] and np.asarray(found.finished).sum() == 26
  _assert_same_answers(found, _sample(av, rows, range(32), stop_id=int(stop), bucket=64, **options))


def test_samples_of_one_activation_are_those_of_repeated_activations(av, vectors):
  """The prompt of each activation is computed once for its four samples."""
  together = _sample(av, vectors, range(32))
  _assert_same_answers(together, _sample(av, np.repeat(vectors, 4, axis=0), range(32)))
  assert len(np.unique(np.asarray(together.tokens[:4]), axis=0)) == 4


def test_the_loop_ends_when_all_answers_have(av, vectors):
  """Of 1,500 allowed tokens one is drawn where the answer stops at once, and all where it never does."""
  model, params = av
  params, draws = (
    decode_copy(params, model.dtype),
    Draws(jax.random.key(3), jnp.zeros(1, jnp.int32)),
  )

  def drawn(stop: int) -> int:
    fixed = {"model": model}
    fixed["sampling"] = Sampling(stop_ids=(stop,), max_new_tokens=1500, greedy=True, bucket=1500)
    prompt = (BEFORE, AFTER, jnp.asarray(vectors[:1]))
    state = prefill(params, prompt, draws, room=1500, **fixed)
    state, _ = loop.decode(params, state, draws.key, draws.temperature, 1500, **fixed)
    return int(state.step)

  first = int(_sample(av, vectors[:1], [0], greedy=True).tokens[0, 0])
  assert (drawn(first), drawn(NEVER)) == (1, 1500)


def test_any_of_several_stop_tokens_ends_an_answer(av, vectors):
  free = np.asarray(_sample(av, vectors, range(8), greedy=True).tokens)
  one, other = int(free[0, 1]), int(free[0, 3])
  assert one != other
  model, params = av
  sampling = Sampling(stop_ids=(other, one), max_new_tokens=6, greedy=True)
  draws = Draws(jax.random.key(3), jnp.arange(8, dtype=jnp.int32))
  found = sample(params, BEFORE, AFTER, jnp.asarray(vectors), draws, model=model, sampling=sampling)
  assert int(found.lengths[0]) == 2 and bool(found.finished[0])
