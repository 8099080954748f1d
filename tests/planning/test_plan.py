"""`nla plan`: programs compiled for TPU slices that are not here, and what is promised of them."""

import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from nla_jax.cli.main import main
from nla_jax.config import load_config
from nla_jax.errors import NLAError
from nla_jax.models.lora import TARGETS
from nla_jax.planning import plan
from nla_jax.planning.chips import CHIPS
from nla_jax.planning.collectives import collectives, shapes_of
from nla_jax.planning.model import find_model
from nla_jax.planning.programs import programs
from nla_jax.planning.text import table
from nla_jax.planning.topology import describe, mesh_of_topology
from nla_jax.planning.work import held_bytes

ROOT = Path(__file__).parents[2]
MESH = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2}
SHARES = 4  # devices that share a batch's rows


def tiny(**changes):
  return load_config(str(ROOT / "configs" / "tiny.py"), {**MESH, **changes})


@pytest.fixture(scope="module")
def compiled():
  """The tiny config's AV on eight v5e chips, with batches of which a device has more than one chunk of tokens."""
  pytest.importorskip("libtpu")
  config = tiny(**{"av.batch": 128, "rl.activations": 36, "compute": "auto"})
  made = plan.make_plan(config, describe("v5e:2x4"), ("sft av", "rl"))
  return {one.program.name: one for one in made.compiled}, config, made


def in_loop_gathers(text: str, rows: int) -> list[tuple[int, ...]]:
  """Results of all-gathers inside loops whose leading axis is not the device's rows: weights."""
  return [
    shape
    for one in collectives(text, 8)
    if one.in_loop and one.kind == "all-gather"
    for _, shape in one.shapes
    if len(shape) > 1 and shape[0] != rows
  ]


def logits_of_all_tokens(text: str, tokens: int, vocabulary: int) -> list[tuple[int, ...]]:
  """float32 arrays that hold a vocabulary for each of a device's tokens."""
  return [
    shape
    for dtype, shape in shapes_of(text)
    if dtype == "f32" and vocabulary in shape and math.prod(shape) >= tokens * vocabulary
  ]


@pytest.mark.slow
def test_the_token_loop_gathers_no_weights(compiled):
  programs, config, _ = compiled
  rows = config.rl.activations * config.rl.group // SHARES
  assert in_loop_gathers(programs["rl tokens"].text, rows) == []
  # The same look at a training program finds what it is meant to find: there each layer gathers its weights.
  assert in_loop_gathers(programs["sft av"].text, config.av.batch // SHARES)


@pytest.mark.slow
def test_no_program_holds_logits_of_all_tokens(compiled):
  programs, _, _ = compiled
  for name in ("sft av", "rl scores", "rl av"):
    leaves = jax.tree_util.tree_leaves_with_path(programs[name].program.arguments)
    tokens = next(leaf for _, leaf in leaves if leaf.dtype == "int32" and len(leaf.shape) == 2)
    embedding = next(leaf for path, leaf in leaves if "embedding" in jax.tree_util.keystr(path))
    count, vocabulary = (
      math.prod(tokens.shape) // SHARES,
      embedding.sharding.shard_shape(embedding.shape)[0],
    )
    text = programs[name].text
    assert any(dtype == "f32" and vocabulary in shape for dtype, shape in shapes_of(text)), (
      name
    )  # a chunk's
    assert logits_of_all_tokens(text, count, vocabulary) == [], name
  assert logits_of_all_tokens(
    f"%x = f32[{count},{vocabulary}]", count, vocabulary
  )  # would be found


@pytest.mark.slow
def test_what_a_plan_says(compiled):
  programs, _, made = compiled
  assert made.fits and made.counted
  for name, one in programs.items():
    assert one.memory.arguments > 0 and one.needed < 2**30
    assert (one.work.flops > 0) == (name != "rl copy")  # which multiplies nothing
    assert one.seconds > 0 and one.bound in ("compute", "memory", "links")
  # While the AV learns, the AR with its optimizer and the reference lie beside it; donated states are not held twice.
  av = programs["rl av"].memory
  assert av.beside > 0 and av.results < av.arguments / 4
  said = table(made)
  assert "fits" in said and "all-reduce" in said and "rl tokens" in said


@pytest.mark.slow
def test_adapters_are_planned_on_a_base_that_lies_there_once():
  """The AR reads three of the base's four blocks where they lie: they are neither gathered at once nor copied."""
  pytest.importorskip("libtpu")
  made = plan.make_plan(
    tiny(**{"lora.rank": 8, "compute": "auto"}), describe("v5e:2x4"), ("rl ar",)
  )
  (ar,) = made.compiled
  base = ar.program.arguments[2]
  matrices = [base["layers"][name] for name in TARGETS]
  assert all(leaf.dtype == "bfloat16" for leaf in matrices)

  # 1. The reference's base is the one that the program is given: beside it lie adapters alone.
  given, beside = {id(leaf) for leaf in jax.tree.leaves(base)}, jax.tree.leaves(ar.program.beside)
  others = [leaf for leaf in beside if id(leaf) not in given]
  assert len(beside) - len(others) == len(given)
  assert ar.memory.beside == held_bytes(others) == held_bytes(beside) - held_bytes(base)
  assert not {leaf.shape for leaf in others} & {leaf.shape for leaf in matrices}
  assert made.trained["av"] == 4 * 8 * sum(map(sum, _widths(base))) and made.lora.rank == 8
  assert "trained: adapters of rank 8 on query, key, value, output, gate, up, down" in table(made)

  # 2. No array of the program is a stack but the base's own, nor larger than a device's part of it.
  shapes = {shape for _, shape in shapes_of(ar.text)}
  lower = {(3, *leaf.sharding.shard_shape(leaf.shape)[1:]) for leaf in matrices}
  whole = {leaf.shape for leaf in matrices} | {(3, *leaf.shape[1:]) for leaf in matrices}
  assert {leaf.sharding.shard_shape(leaf.shape) for leaf in matrices} <= shapes
  assert not shapes & (lower | whole)


def _widths(base) -> list[tuple[int, int]]:
  """What each matrix sums over and what it gives."""
  inputs = {"output": 3}  # axes of the stack before the result's
  found = []
  for name in TARGETS:
    shape = base["layers"][name].shape
    cut = inputs.get(name, 2)
    found.append((math.prod(shape[1:cut]), math.prod(shape[cut:])))
  return found


@pytest.mark.slow
@pytest.mark.parametrize(
  ("memory", "expected"),
  [
    (
      10.5 * 2**20,
      ("sft ar needs 1", "nearest that fits: --topology=v5e:2x4 with --config.mesh.fsdp=8"),
    ),
    (1000, ("too large before it begins", "no larger slice of these chips")),
  ],
)
def test_too_large_is_said_with_sizes_and_what_fits(monkeypatch, capfd, memory, expected):
  pytest.importorskip("libtpu")
  monkeypatch.setitem(CHIPS, "v5e", CHIPS["v5e"]._replace(memory=memory))
  arguments = [
    "plan",
    f"--config={ROOT / 'configs' / 'tiny.py'}",
    "--config.ar.batch=64",
    "--topology=v5e:2x2",
  ]
  assert main([*arguments, "--programs=sft ar"]) == 1
  said = capfd.readouterr().out
  assert "DOES NOT FIT" in said and all(part in said for part in expected), said


@pytest.mark.slow
def test_suggestions_are_ranked_and_what_cannot_be_is_said(capfd):
  pytest.importorskip("libtpu")
  arguments = [
    f"--config={ROOT / 'configs' / 'tiny.py'}",
    "--topology=v5e:2x4",
    "--programs=rl scores",
  ]
  assert main(["plan", *arguments, "--suggest", "--tries=3"]) == 0
  fitting, refused = capfd.readouterr().out.split("not:")
  rates = [int(line.split()[-4].replace(",", "")) for line in fitting.splitlines()[1:]]
  assert len(rates) == 2 and rates == sorted(rates, reverse=True)
  assert "mesh (1, 1, 8)" in refused and "4 query heads" in refused


@pytest.mark.slow
def test_gpus_are_planned_for_where_their_compiler_is_installed():
  pytest.importorskip("jax_cuda13_plugin")
  made = plan.make_plan(
    tiny(**{"mesh.data": 1, "mesh.fsdp": 4}), describe("h100:8"), ("extract", "rl tokens")
  )
  assert made.fits and [one.program.name for one in made.compiled] == ["extract", "rl tokens"]


@pytest.mark.parametrize(
  ("topology", "changes", "expected"),
  [
    ("v9:2x2", {}, "chips are v4, v5e, v5p, v6e"),
    ("v5e", {}, "CHIP:SHAPE"),
    ("v5e:3x5", {}, "shapes of v5e are 1x1"),
    ("v5e:4x4", {}, r"2 × 2 × 2 = 8 devices, v5e:4x4 has 16"),
    ("v5e:2x2*2", {"mesh.data": 1, "mesh.fsdp": 4}, "multiple of the 2 slices"),
    ("v5e:2x4", {"av.batch": 6}, r"config\.av\.batch / av\.accumulate is 6"),
    ("v5e:2x4", {"mesh.tensor": 8, "mesh.data": 1, "mesh.fsdp": 1}, "4 query heads"),
  ],
)
def test_what_cannot_be_planned_is_said_in_one_line(topology, changes, expected):
  pytest.importorskip("libtpu")
  with pytest.raises(NLAError, match=expected) as caught:
    plan.make_plan(tiny(**changes), describe(topology))
  assert "\n" not in str(caught.value)


def test_a_missing_libtpu_is_said_with_the_extra_that_brings_it(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "libtpu", None)
  assert main(["plan", f"--config={ROOT / 'configs' / 'tiny.py'}", "--topology=v5e:2x4"]) == 2
  assert "nla_jax[tpu]" in capsys.readouterr().err


def rl_programs(**changes):
  """{name: program} of the tiny config's RL on eight planned chips; nothing is compiled."""
  config = tiny(**changes)
  model, key_dtype = find_model(config), jax.random.key(0).dtype
  with jax.set_mesh(mesh_of_topology(describe("v5e:2x4"), 2, 2, 2)):
    found = {one.name: one for one in programs(config, model, jnp.float32, key_dtype)}
    for name in ("rl judge", "rl ar", "rl ar alone", "rl av"):
      if name in found:
        found[name].function.eval_shape(*found[name].arguments)
  return {name: one for name, one in found.items() if name.startswith("rl")}


def test_the_fixed_ar_and_the_best_parameters_are_counted_beside_every_program_of_rl():
  pytest.importorskip("libtpu")
  plain = rl_programs()
  watched = rl_programs(**{"rl.watch_every": 2})
  kept = rl_programs(**{"rl.watch_every": 2, "rl.keep": "best"})
  av, ar = (held_bytes(plain[f"rl {name}"].arguments[0].params) for name in ("av", "ar"))
  for name, one in plain.items():
    before = held_bytes(one.beside)
    assert held_bytes(watched[name].beside) == before + ar > before, name
    assert held_bytes(kept[name].beside) == before + ar + ar + av, name


def test_an_ar_that_learns_from_the_best_texts_judges_all_of_them():
  pytest.importorskip("libtpu")
  found = rl_programs(**{"rl.ar_texts": "best", "rl.drop_constant": True})
  texts = {name: len(found[name].arguments[1].tokens) for name in ("rl ar", "rl ar alone")}
  assert texts == {"rl ar": 4, "rl ar alone": 16} and found["rl judge"].rows == 16
  assert [found[name].calls for name in ("rl judge", "rl ar", "rl ar alone")] == [3, 3, 1]
