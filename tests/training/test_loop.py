"""What stands around every training run: it goes on where it was stopped, and stops for the reasons it should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.config_section import optimizer as settings
from nla_jax.data.loader import batches
from nla_jax.errors import NLAError
from nla_jax.parallel import distributed
from nla_jax.progress import read_metrics
from nla_jax.training import loop as loop_lib
from nla_jax.training.loop import Loop, Session
from nla_jax.training.optimizer import create_state, guarded_update, make_optimizer

ROWS = [{"x": np.float32(i)} for i in range(7)]
STEPS = 6
OPTIMIZER = make_optimizer(settings(warmup=0, lr=0.1), STEPS)


@jax.jit
def update(state, x):
  grads = jax.grad(lambda params: jnp.mean((params["weight"] * x - 1) ** 2))(state.params)
  return guarded_update(state, grads, OPTIMIZER, 1.0)


def run(folder, stop_after=None, spoil=False):
  """A run of six steps whose step also carries a number; its weight, or how it was stopped."""
  noted = []
  session = Session("toy", folder, 3, 2, 2, lambda: noted.append(True))
  stream = batches(ROWS, batch_size=2, seed=session.seed)
  state = create_state({"weight": jnp.ones((1,))}, OPTIMIZER)
  loop = Loop(session, STEPS, [stream])
  state, values = loop.restore({"one": state}, carried=1.0)
  state, carried = state["one"], values["carried"]
  for step in loop.remaining():
    x = next(stream)["x"]
    state, norm = update(state, np.nan * x if spoil else x)
    carried *= 1.1
    loop.record(step, {"norm": norm, "first": x[0], "carried": carried}, {"norm": norm})
    distributed._state["terminated"] = step == stop_after
    loop.end_step(step, {"one": state}, carried=carried)
  loop.close(last=carried)
  return float(state.params["weight"][0]), len(noted)


@pytest.fixture(autouse=True)
def no_signal():
  yield
  distributed._state["terminated"] = False


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_a_stopped_run_goes_on_with_the_same_batches_and_numbers(tmp_path, stop_after):
  whole, saves = run(tmp_path / "whole")
  assert saves == 2  # after steps 2 and 4; the last step's state is what the run returns
  with pytest.raises(
    distributed.PreemptedError, match=f"toy stopped after step {stop_after + 1} of 6"
  ):
    run(tmp_path / "cut", stop_after)
  assert run(tmp_path / "cut")[0] == whole
  curves = [read_metrics(tmp_path / name) for name in ("cut", "whole")]
  for curve in curves:
    seconds = [line.pop("seconds") for line in curve]
    assert seconds == sorted(seconds) and seconds[0] > 0
  assert curves[0] == curves[1] and [one["step"] for one in curves[0]] == [*range(7)]


def test_the_seconds_of_a_curve_go_on_where_the_checkpoint_left_them(tmp_path, monkeypatch):
  """On a clock that ticks once a look; between the two runs a day passes."""
  ticks = iter(range(10**6))
  monkeypatch.setattr(loop_lib.time, "time", lambda: float(next(ticks)))
  with pytest.raises(distributed.PreemptedError):
    run(tmp_path, 2)
  before = [line["seconds"] for line in read_metrics(tmp_path)]
  monkeypatch.setattr(loop_lib.time, "time", lambda: 86400.0 + next(ticks))
  run(tmp_path)
  seconds = [line["seconds"] for line in read_metrics(tmp_path)]
  assert seconds[:3] == before and before[-1] < seconds[3] < 1000


def test_too_many_skipped_updates_in_a_row_stop_the_run_by_name(tmp_path):
  with pytest.raises(NLAError, match=r"toy \(one\): 2 updates in a row"):
    run(tmp_path, spoil=True)
