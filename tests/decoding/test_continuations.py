"""A language model's continuations are those of the uncached forward, in chunks or not, steered or not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.decoding.continuations import (
  Steering,
  continue_prompts,
  continued,
  next_logprobs,
  padded,
  read_prompts,
)
from nla_jax.decoding.loop import Draws, Sampling
from nla_jax.models.injection import ADD, REPLACE, TURN, Injection
from nla_jax.models.language_model import LanguageModel
from nla_jax.models.parameters import unembedding
from nla_jax.models.transformer import Transformer

NEVER = -1  # a stop token that is no word, so that answers run to the cap
PROMPTS = [[5, 9, 11], list(range(20, 57)), [7] * 16]
NEW = 6
WHOLE = 48  # tokens of a whole forward, the longest prompt and its answer among them


def _continue(model, prompts=PROMPTS, group=1, **options):
  architecture, params = model
  draws = Draws(jax.random.key(2), jnp.arange(len(prompts) * group, dtype=jnp.int32))
  sampling = Sampling(stop_ids=(NEVER,), max_new_tokens=NEW, greedy=options.pop("greedy", True))
  return continue_prompts(
    params, prompts, draws, model=LanguageModel(architecture), sampling=sampling, **options
  )


@pytest.fixture(scope="module")
def model(tiny_architecture, tiny_params):
  return tiny_architecture, tiny_params


@functools.partial(jax.jit, static_argnums=0)
def _logits(architecture, params, tokens, injection):
  hidden = Transformer(architecture).apply({"params": params}, tokens, injection=injection).hidden
  return hidden[0] @ unembedding(params).T


def _greedy_without_cache(model, prompt: list[int], injection=None) -> list[int]:
  """The likeliest tokens by whole forwards, padded on the right to one length so that one program serves all.

  `injection` is a function of that length.
  """
  ids, given = list(prompt), None if injection is None else injection(WHOLE)
  for _ in range(NEW):
    tokens = jnp.array([ids + [0] * (WHOLE - len(ids))], jnp.int32)
    logits = _logits(*model, tokens, given)
    ids.append(int(jnp.argmax(logits[len(ids) - 1])))
  return ids[len(prompt) :]


@pytest.mark.parametrize("chunk", [4, 16, 512])
def test_greedy_continuations_are_those_of_whole_forwards(model, chunk):
  found = _continue(model, chunk=chunk)
  for row, prompt in enumerate(PROMPTS):
    assert found.tokens[row].tolist() == _greedy_without_cache(model, prompt)


def test_draws_do_not_depend_on_the_chunk(model):
  whole = _continue(model, greedy=False, group=3)
  parts = _continue(model, greedy=False, group=3, chunk=8)
  np.testing.assert_array_equal(whole.tokens, parts.tokens)
  assert len({tuple(row) for row in np.asarray(whole.tokens[3:6]).tolist()}) > 1


def test_prompts_share_few_lengths():
  for longest, length in ((1, 16), (16, 16), (17, 32), (512, 512), (513, 1024), (1500, 1536)):
    tokens, valid = padded([[3] * longest, [4]])
    assert tokens.shape == (2, length) and valid.sum(axis=1).tolist() == [longest, 1]
    assert tokens[0, -1] == 3 and tokens[1, -1] == 4


@pytest.mark.parametrize("mode", [ADD, REPLACE, TURN])
@pytest.mark.parametrize("generated", [False, True])
@pytest.mark.parametrize("after", [-1, 1])
def test_a_steered_continuation_is_that_of_whole_forwards(model, mode, generated, after):
  """The vector goes to two positions of the prompt, in different chunks, and to every generated token if asked."""
  prompt, positions = PROMPTS[1], [3, 30]
  vector = np.random.default_rng(4).normal(size=(1, 32)).astype(np.float32)
  strength = np.array([1.5], np.float32)

  def injection(length: int) -> Injection:
    slot = np.zeros((1, length), bool)
    slot[0, positions] = True
    slot[0, len(prompt) :] = generated
    return Injection(
      jnp.asarray(slot), jnp.asarray(vector), jnp.asarray(strength), after=after, mode=mode
    )

  steering = Steering(vector, [positions], after, mode, strength, generated)
  found = _continue(model, [prompt], steering=steering, chunk=16)
  steered = _greedy_without_cache(model, prompt, injection)
  assert found.tokens[0].tolist() == steered
  if mode != REPLACE:
    assert steered != _greedy_without_cache(model, prompt), "the vector must change something"


def test_each_prompt_has_its_own_vector(model):
  vectors = np.random.default_rng(5).normal(size=(2, 32)).astype(np.float32)
  prompts, strength = [PROMPTS[0], PROMPTS[0]], np.array([4.0, 4.0], np.float32)
  both = _continue(
    model, prompts, group=2, steering=Steering(vectors, [[2], [2]], 1, ADD, strength, True)
  )
  for row in (0, 1):
    steering = Steering(vectors[row : row + 1], [[2]], 1, ADD, strength[:1], True)
    alone = _continue(model, prompts[:1], steering=steering)
    np.testing.assert_array_equal(both.tokens[2 * row], alone.tokens[0])
    np.testing.assert_array_equal(both.tokens[2 * row + 1], alone.tokens[0])
  assert both.tokens[0].tolist() != both.tokens[2].tolist()


def test_a_base_that_adapters_share_continues_like_the_model_itself(model):
  architecture, params = model
  shared = (architecture, {"base": params})
  np.testing.assert_array_equal(_continue(shared).tokens, _continue(model).tokens)


def test_next_logprobs_are_those_of_whole_forwards(model):
  architecture, params = model
  found = next_logprobs(read_prompts(params, PROMPTS, model=LanguageModel(architecture), chunk=16))
  for row, prompt in enumerate(PROMPTS):
    logits = _logits(*model, jnp.array([prompt], jnp.int32), None)[-1]
    np.testing.assert_allclose(found[row], jax.nn.log_softmax(logits), atol=2e-4)


def test_a_vector_for_generated_tokens_of_some_prompts_only(model):
  """Of two equal prompts only the second is steered, and only in what it generates."""
  vectors = np.random.default_rng(6).normal(size=(2, 32)).astype(np.float32)
  strength, prompts = np.full(2, 8, np.float32), [PROMPTS[0]] * 2
  steering = Steering(vectors, [[], []], 1, ADD, strength, [False, True])
  found = _continue(model, prompts, steering=steering).tokens.tolist()
  assert found[0] == _continue(model, prompts[:1]).tokens[0].tolist()
  assert found[1][0] == found[0][0] and found[1] != found[0]


def test_a_limit_below_the_cap_cuts_answers_and_changes_none(model):
  architecture, params = model
  read = read_prompts(params, PROMPTS, model=LanguageModel(architecture))
  draws = Draws(jax.random.key(2), jnp.arange(len(PROMPTS), dtype=jnp.int32))
  sampling = Sampling(stop_ids=(NEVER,), max_new_tokens=NEW, bucket=2)
  whole = continued(read, draws, sampling=sampling)
  for limit in (1, 3, NEW):
    cut = continued(read, draws, sampling=sampling, limit=limit)
    np.testing.assert_array_equal(cut.tokens[:, :limit], whole.tokens[:, :limit])
    assert cut.lengths.tolist() == [limit] * len(PROMPTS)


@pytest.mark.parametrize("shared", [1, 20, 36])
@pytest.mark.parametrize("chunk", [8, 512])
def test_what_prompts_begin_with_may_be_read_once(model, shared, chunk):
  architecture, params = model
  vectors = np.random.default_rng(7).normal(size=(2, 32)).astype(np.float32)
  steering = Steering(vectors, [[36], []], 1, ADD, np.array([2.0, 1.0], np.float32), [True, False])
  options = {"model": LanguageModel(architecture), "steering": steering}
  prompts, draws = [PROMPTS[1]] * 2, Draws(jax.random.key(2), jnp.arange(2, dtype=jnp.int32))
  sampling = Sampling(stop_ids=(NEVER,), max_new_tokens=NEW, greedy=True)
  found = []
  for n in (0, shared):
    read = read_prompts(params, prompts, chunk=chunk, shared=n, **options)
    answers = continued(read, draws, sampling=sampling, steering=steering)
    found.append((next_logprobs(read), answers.tokens.tolist()))
  np.testing.assert_allclose(found[1][0], found[0][0], atol=1e-4)
  assert found[1][1] == found[0][1] and found[0][1][0] != found[0][1][1]
