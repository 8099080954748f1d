"""Collectives of a compiled program's text: a real program on CPU devices, and the spellings of the TPU compiler."""

import json
import os
import subprocess
import sys

import pytest

from nla_jax.planning.collectives import bytes_by_kind, collectives

TEXT = """\
HloModule jit_f, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%piece (p: bf16[4,8]) -> bf16[16,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  ROOT %ag.2 = bf16[16,8]{1,0:T(8,128)} all-gather(%p), channel_id=7, replica_groups=[2,4]<=[4,2]T(1,0), chain_id="0"
}

%body (s: (s32[], f32[10])) -> (s32[], f32[10]) {
  %s = (s32[], f32[10]) parameter(0)
  %x = f32[10]{0} get-tuple-element(%s), index=1
  %ar = f32[10]{0:T(256)} all-reduce(%x), channel_id=3, replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  %rs = f32[5]{0} reduce-scatter(%x), channel_id=4, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, to_apply=%add
  %late = bf16[16,8]{1,0} fusion(%x), kind=kOutput, calls=%piece
  ROOT %t = (s32[], f32[10]) tuple(%s, %ar)
}

%condition (s: (s32[], f32[10])) -> pred[] {
  %s = (s32[], f32[10]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %n = s32[]{:T(128)} constant(6)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[10]) -> f32[10] {
  %x = f32[10]{0} parameter(0)
  %cp = f32[10]{0} collective-permute(%x), channel_id=9, source_target_pairs={{0,1}}
  %b = (f32[3]{0}, f32[12]{0}) all-gather-start(%x), replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}
  %done = f32[12]{0} all-gather-done(%b)
  %w = (s32[], f32[10]) while(%init), condition=%condition, body=%body
  ROOT %out = f32[10]{0} get-tuple-element(%w), index=1
}
"""


def test_bytes_and_repetitions_of_every_spelling():
  found = {one.kind + str(one.times): one for one in collectives(TEXT, 8)}
  assert found["all-reduce6"].received == 2 * 40 / 2 and found["all-reduce6"].in_loop
  assert found["reduce-scatter6"].received == 20
  assert found["collective-permute1"].received == 40
  gathers = [one for one in collectives(TEXT, 8) if one.kind == "all-gather"]
  assert sorted(one.received for one in gathers) == [48 * 3 / 4, 16 * 8 * 2 * 3 / 4]
  assert not any(one.in_loop for one in gathers)  # the one hidden behind the loop's work runs once
  assert bytes_by_kind(collectives(TEXT, 8))["all-reduce"] == 6 * 40


PROGRAM = """
import json, jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from nla_jax.planning.collectives import collectives
mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
def f(x, w):
  return jax.lax.scan(lambda x, w: (jnp.einsum("bd,df->bf", x, jax.sharding.reshard(w, P())), None), x, w)[0]
with jax.set_mesh(mesh):
  at = lambda shape, *axes: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*axes)))
  text = jax.jit(f).lower(at((16, 64), "x"), at((5, 64, 64), None, "x")).compile().as_text()
print(json.dumps([one[:4] for one in collectives(text, 8)]))
"""


def test_a_compiled_program():
  """Five layers, each gathering a 64 × 64 float32 weight from eight shards: in a loop, or once for all layers."""
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM],
    capture_output=True,
    text=True,
    env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"},
  )
  assert done.returncode == 0, done.stderr[-2000:]
  found = json.loads(done.stdout)
  assert [kind for kind, *_ in found] == ["all-gather"]
  assert sum(received * times for _, received, times, _ in found) == pytest.approx(
    5 * 64 * 64 * 4 * 7 / 8
  )
