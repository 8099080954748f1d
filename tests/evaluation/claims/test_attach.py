"""A reading gets its claims with their confidence, keeps them in its file, and shows them."""

import dataclasses
import json

import numpy as np
import pytest
from support.claiming_pair import LENGTH, claiming_subject

from nla_jax.autoencoder.explanation import Explanation
from nla_jax.conversation.tokens import Tokens
from nla_jax.errors import NLAError
from nla_jax.evaluation.claims.attach import with_confidence
from nla_jax.evaluation.claims.confidence import Model
from nla_jax.evaluation.claims.evidence import FEATURES
from nla_jax.reading.reading import Reading


@pytest.fixture(scope="module")
def nla():
  return claiming_subject(False).nla


@pytest.fixture(scope="module")
def model():
  """A claim is true if it comes again."""
  weights = np.array([6.0, *[0.0] * (len(FEATURES) - 1)])
  n = len(FEATURES)
  fixed = {"positions": 4, "samples": 2, "resamples": 2}
  return Model(FEATURES, np.full(n, 0.5), np.ones(n), weights, 0.0, fixed)


@pytest.fixture(scope="module")
def reading(nla):
  text = f"document3 {' '.join(nla.known[3] * 2)}"
  known = ", ".join(nla.known[3][:2])
  other = next(word for word in nla.directions if word not in nla.known[3])
  tokens = nla.tokenizer(text)
  n = len(tokens["input_ids"])
  starts, ends = zip(*tokens["offset_mapping"])
  nothing = [None] * n
  fields = {one.name for one in dataclasses.fields(Tokens)}
  values = {
    "text": text,
    "ids": tokens["input_ids"],
    "starts": list(starts),
    "ends": list(ends),
    "roles": nothing,
    "messages": nothing,
    "sections": ["content"] * n,
  }
  assert fields == set(values), "the tokens of a reading have other fields now"
  best = Explanation(f"About: {known}, {other}", 0.9, 0.2, 0.8)
  silent = Explanation(None, None, None, None, "…", "it has no tags")
  return Reading(Tokens(**values), [LENGTH, 9], [[best, silent], [silent]], [1.0, 1.0], 1, 3, 0.9)


def test_what_comes_again_is_trusted_and_what_does_not_is_not(nla, reading, model):
  found = with_confidence(nla, reading, model)
  *known, other = found[0].claims
  assert [one.field for one in found[0].claims] == ["About"] * 3
  assert min(one.confidence for one in known) > 0.9 > 0.5 > other.confidence
  assert found[1].claims == () and found.samples[0][1].claims == ()
  # The words stay what they were.
  assert [one.text for one in found] == [one.text for one in reading]


def test_claims_are_kept_in_the_readings_file_and_shown(nla, reading, model):
  found = with_confidence(nla, reading, model)
  again = Reading.from_json(json.loads(json.dumps(found.to_json())))
  assert again == found
  first = found[0].claims[0]
  assert f"claims: {first.text!r} (About) {first.confidence:.0%}" in " ".join(str(found).split())
  assert f'title="{first.confidence:.0%} likely to be true">{first.text}<' in found._repr_html_()
  # Without claims a file is what it was.
  assert "claims" not in json.dumps(reading.to_json()) and "claims:" not in str(reading)


def test_without_a_baseline_nothing_is_weighed(nla, reading, model):
  with pytest.raises(NLAError, match="the variance of the pair's activations is not known"):
    with_confidence(nla, dataclasses.replace(reading, baseline=None), model)
