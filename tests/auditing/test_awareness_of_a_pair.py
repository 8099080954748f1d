"""The lens and the forked question of a real, tiny pair."""

import numpy as np
import pytest
from support.aware_pair import conversation
from support.browser import tiny_pair

from nla_jax.auditing import baselines
from nla_jax.auditing.awareness import Protocol, measure
from nla_jax.auditing.grader import default_grader
from nla_jax.auditing.transcripts import transcript_of
from nla_jax.evaluation.lenses import lens


@pytest.fixture(scope="module")
def nla(tmp_path_factory):
  return tiny_pair(tmp_path_factory.mktemp("pair"))


def test_the_lens_gives_probabilities_that_sum_to_one(nla):
  rows = np.random.default_rng(0).normal(size=(1, nla.pair.verbalizer.architecture.d_model))
  target = nla.whole_target
  n = target.model.architecture.vocab_size
  nats = lens.surprise(target, np.repeat(rows, n, axis=0), range(n))
  assert np.exp(-nats).sum() == pytest.approx(1.0, abs=1e-4)


def test_every_baseline_runs_on_a_pair(nla):
  audited, benign = (
    [transcript_of(conversation(f"{name}{i}", name == "a"), "", "here") for i in range(2)]
    for name in "ab"
  )
  labels = {"a0": 1, "a1": 1, "b0": 0, "b1": 0}
  found = measure(nla, audited, benign, default_grader(), Protocol(tokens=4), labels=labels)
  assert set(found.rows) == {"NLA", "shuffled", "text", "lens", "said", "follow-up", "probe"}
  assert found.left_out == {}
  assert np.isfinite(baselines.follow_up(nla, audited)).all()
