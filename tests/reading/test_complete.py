"""Continuations do not depend on what shares their batch, and few programs are compiled for them."""

import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.decoding import continuations, loop
from nla_jax.errors import NLAError
from nla_jax.models.language_model import LanguageModel
from nla_jax.reading.complete import Drawing, Target, complete

NEVER = -1


@pytest.fixture(scope="module")
def target(tiny_architecture, tiny_params) -> Target:
  return Target(LanguageModel(tiny_architecture, jnp.float32), {"base": tiny_params}, (NEVER,))


def test_a_prompt_has_its_samples_whatever_else_is_asked(target):
  prompts = [[5, 9, 11], list(range(20, 57)), [7] * 16]
  drawing = Drawing(max_new_tokens=6, samples=3, seed=4)
  found = complete(target, prompts, drawing, logprobs=True)
  assert [[len(one) for one in samples] for samples in found.tokens] == [[6] * 3] * 3
  alone = complete(target, prompts[:1], drawing, logprobs=True)
  assert alone.tokens[0] == found.tokens[0]
  np.testing.assert_allclose(alone.logprobs[0], found.logprobs[0], atol=1e-4)
  # A cap is where a continuation ends, and nothing else about it.
  short = complete(target, prompts, Drawing(max_new_tokens=2, samples=3, seed=4))
  assert short.tokens == [[one[:2] for one in samples] for samples in found.tokens]
  assert short.logprobs is None


def test_shared_draws_are_those_of_the_first_prompt(target):
  found = complete(target, [[5, 9]] * 3, Drawing(max_new_tokens=8, samples=2), shared=True).tokens
  assert found[0] == found[1] == found[2] and found[0][0] != found[0][1]
  apart = complete(target, [[5, 9]] * 3, Drawing(max_new_tokens=8, samples=2)).tokens
  assert apart[0] == found[0] and apart[1] != found[0]


def test_more_prompts_than_a_block_and_none_at_all(target):
  prompts = [[3 + i] for i in range(40)]
  found = complete(target, prompts, Drawing(max_new_tokens=1, greedy=True), logprobs=True)
  assert [one[0][0] for one in found.tokens] == found.logprobs.argmax(axis=1).tolist()
  assert complete(target, [], Drawing(max_new_tokens=1)).tokens == []
  assert (
    complete(target, prompts[:2], Drawing(max_new_tokens=0, samples=2)).tokens == [[[], []]] * 2
  )


def test_what_ends_a_continuation_is_none_of_it(target):
  free = complete(target, [[5, 9, 11]], Drawing(max_new_tokens=8)).tokens[0][0]
  end = free[3]
  stopped = target._replace(stop_ids=(end,))
  assert (
    complete(stopped, [[5, 9, 11]], Drawing(max_new_tokens=8)).tokens[0][0]
    == free[: free.index(end)]
  )


def test_few_programs(target):
  programs = (continuations.extend, continuations._begin, loop.decode)
  complete(target, [[3] * 10] * 8, Drawing(max_new_tokens=64, samples=4))
  before = [one._cache_size() for one in programs]
  for rows, length, new, samples in ((2, 3, 1, 3), (5, 16, 30, 4), (8, 12, 64, 3)):
    prompts = [[3] * length] * rows
    complete(target, prompts, Drawing(max_new_tokens=new, samples=samples, temperature=0.5 + new))
  assert [one._cache_size() for one in programs] == before


@pytest.mark.parametrize(
  ("prompt", "message"),
  [
    ([], "prompt 1 of 2 is empty"),
    ([3, 300], "id 300"),
    ([-1], "token id -1"),
    (["a"], "expected token ids"),
    ([3] * 509, "509 tokens and 4 new ones are beyond the 512"),
  ],
)
def test_prompts_that_cannot_be_continued(target, prompt, message):
  with pytest.raises(NLAError, match=message):
    complete(target, [[3], prompt], Drawing(max_new_tokens=4))


@pytest.mark.parametrize(
  "options",
  [
    {"samples": 0},
    {"samples": 1.5},
    {"temperature": float("nan")},
    {"seed": "x"},
    {"max_new_tokens": True},
  ],
)
def test_drawings_that_are_none(options):
  with pytest.raises(NLAError, match=next(iter(options))):
    Drawing(**options)
