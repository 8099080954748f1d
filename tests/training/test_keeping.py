"""The looks at held-out activations: when they are taken, what they draw, and that the best parameters are kept."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.models.lora import joined
from nla_jax.parallel import distributed
from nla_jax.progress import read_metrics
from nla_jax.training import keeping
from nla_jax.training.loop import Loop, Session
from nla_jax.training.optimizer import TrainState

# What is seen after so many updates: best after the third, and an explanation of nothing after the fourth.
SCORES = (0.1, 0.0, 0.2, 0.7, np.nan, 0.3, 0.4)
STEPS = len(SCORES) - 1
VECTORS = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)


def state(weight):
  zero = jnp.zeros((), jnp.int32)
  return TrainState({"weight": jnp.full(3, weight, jnp.float32)}, (), zero, zero, zero)


@jax.jit
def update(one):
  return one._replace(params={"weight": one.params["weight"] + 1}, step=one.step + 1)


def learner(**settings):
  return SimpleNamespace(
    settings=SimpleNamespace(
      **{"steps": STEPS, "watch_every": 1, "keep": "best", "keep_by": "fve_fixed", **settings}
    ),
    pair=SimpleNamespace(verbalizer=SimpleNamespace(dtype=jnp.float32)),
    params=lambda states, name: joined(states[name].params, {"frozen": name}),
    whole=lambda trained, name: joined(trained, {"frozen": name}),
  )


@pytest.fixture
def keys(monkeypatch):
  """The keys that looks were taken with; the pair is worth what `SCORES` says of its weight."""
  found = []

  def watch_pair(pair, params, fixed_ar, vectors, key, baseline):
    assert 0 < baseline <= 1 and float(fixed_ar["weight"][0]) == 100
    found.append(jax.random.key_data(key).tolist())
    score = SCORES[int(params["av"]["weight"][0])]
    return {"fve_fixed": score, "fve_held_out": -score, "duplicates": 0.5}

  monkeypatch.setattr(keeping, "watch_pair", watch_pair)
  yield found
  distributed._state["terminated"] = False


def run(folder, stop_after=None, **settings):
  """A run whose weights are the number of updates, those of the AR plus 100; what it ends with."""
  one = learner(**settings)
  states = {"av": state(0), "ar": state(100)}
  lookout = keeping.Lookout(one, states["ar"].params, VECTORS, seed=3)
  if one.settings.keep == "best":
    states["best"] = {name: states[name].params for name in ("av", "ar")}
  loop = Loop(Session("toy", folder, 3, 2, 2, lambda: None), STEPS, [])
  states, kept = loop.restore(states, **lookout.nothing_kept)

  for step in loop.remaining():
    states, kept, seen = lookout.look(step, states, kept)
    states |= {name: update(states[name]) for name in ("av", "ar")}
    loop.record(step, seen, {})
    distributed._state["terminated"] = step == stop_after
    loop.end_step(step, states, **kept)

  states, kept, seen = lookout.look(STEPS, states, kept)
  loop.close(**seen)
  return lookout.result(states, kept)


def weights(result):
  return [result[name]["weight"].tolist() for name in ("av", "ar")]


def test_the_best_watched_parameters_of_both_models_are_kept_with_their_base(keys, tmp_path):
  result = run(tmp_path)
  assert weights(result) == [[3] * 3, [103] * 3]
  assert [result[name]["base"] for name in ("av", "ar")] == [{"frozen": "av"}, {"frozen": "ar"}]

  lines = read_metrics(tmp_path)
  assert [line["kept_step"] for line in lines] == [0, 0, 2, 3, 3, 3, 3]
  assert lines[-1]["kept_value"] == 0.7 and lines[-1]["duplicates_held_out"] == 0.5
  # The same draw at every look.
  assert len(keys) == len(SCORES) and all(key == keys[0] for key in keys)


@pytest.mark.parametrize("stop_after", [2, 3, 4])
def test_the_best_parameters_survive_a_restart(keys, tmp_path, stop_after):
  """Stopped before the best step, just after it, and when it is past: then only the checkpoint has them."""
  with pytest.raises(distributed.PreemptedError):
    run(tmp_path, stop_after)
  assert weights(run(tmp_path)) == [[3] * 3, [103] * 3]


def test_another_measure_keeps_another_step(keys, tmp_path):
  assert weights(run(tmp_path, keep_by="fve_held_out")) == [[1] * 3, [101] * 3]


def test_looks_are_taken_every_so_many_steps_and_at_the_end_and_the_last_is_kept(keys, tmp_path):
  assert weights(run(tmp_path, watch_every=4, keep="last")) == [[6] * 3, [106] * 3]
  seen = {line["step"]: line for line in read_metrics(tmp_path)}
  assert [step for step, line in seen.items() if "fve_fixed" in line] == [0, 4, 6]
  assert all("kept_step" not in line for line in seen.values())


def test_without_looks_nothing_is_seen(keys, tmp_path):
  assert weights(run(tmp_path, watch_every=0, keep="last")) == [[6] * 3, [106] * 3]
  assert keys == [] and not any("fve_fixed" in line for line in read_metrics(tmp_path))
