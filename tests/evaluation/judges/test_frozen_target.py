"""The frozen target scores options as one plain forward of each would, whatever shares their batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.evaluation.judges.frozen_target import FrozenTarget
from nla_jax.evaluation.judges.judge import Frame, Question
from nla_jax.interop.base_models.random_model import byte_tokenizer
from nla_jax.models.language_model import LanguageModel
from nla_jax.models.parameters import unembedding
from nla_jax.models.transformer import Transformer
from nla_jax.reading.complete import Target

FRAME = Frame("Notes: {text}\nNext:")


@pytest.fixture(scope="module")
def judge(tiny_architecture, tiny_params):
  model = LanguageModel(tiny_architecture, jnp.float32)
  return FrozenTarget(Target(model, {"base": tiny_params}, (-1,)), byte_tokenizer())


def plainly(architecture, params, tokenizer, text, option) -> float:
  """Mean log-probability of an option by a forward over text and option together."""
  before = tokenizer(FRAME.before.format(text=text))["input_ids"]
  after = tokenizer(FRAME.option.format(option=option), add_special_tokens=False)["input_ids"]
  ids = jnp.array([before + after])
  hidden = Transformer(architecture).apply({"params": params}, ids).hidden[0]
  logprobs = jax.nn.log_softmax(hidden @ unembedding(params).T)
  steps = range(len(before) - 1, len(before) + len(after) - 1)
  return float(np.mean([logprobs[i, ids[0, i + 1]] for i in steps]))


def test_an_options_score_is_what_a_plain_forward_says(judge, tiny_architecture, tiny_params):
  questions = [
    Question("a river", ("it flows", "a")),
    Question("a long note about a town and its people", ("sea", "no")),
  ]
  found = judge.logprobs(questions, FRAME)
  for question, values in zip(questions, found):
    expected = [
      plainly(tiny_architecture, tiny_params, judge.tokenizer, question.text, option)
      for option in question.options
    ]
    np.testing.assert_allclose(values, expected, atol=2e-4)


def test_a_score_is_what_the_text_adds_and_nothing_without_one(judge):
  options = ("it flows", "a")
  spoken, empty, none = judge.scores(
    [Question("a river", options), Question(" ", options), Question(None, options)], FRAME
  )
  assert not empty.any() and not none.any()
  given, prior = judge.logprobs([Question("a river", options), Question("(none)", options)], FRAME)
  np.testing.assert_allclose(spoken, given - prior, atol=2e-4)

  # What an option has without a text is in the memory of the judge, and read from there.
  judge._prior[FRAME, "a"] += 1
  (moved,) = judge.scores([Question("a river", options)], FRAME)
  np.testing.assert_allclose(moved - spoken, [0, -1], atol=1e-5)
