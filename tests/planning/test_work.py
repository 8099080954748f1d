"""The work of a traced program, against operations counted by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from nla_jax.models.parameters import init_params
from nla_jax.models.token_scores import token_scores
from nla_jax.models.transformer import Transformer
from nla_jax.planning.work import Work, held_bytes, work_of


def work(function, *arguments, loop=1):
  return work_of(jax.jit(function).trace(*arguments).jaxpr.jaxpr, loop)


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_a_product_and_its_gradient():
  a, b = shape(3, 5), shape(5, 7)
  assert work(jnp.matmul, a, b) == Work(2 * 3 * 5 * 7, 4 * (15 + 35 + 21))
  # The gradient of both operands is two more products of the same size; the first one's result is used.
  both = work(jax.grad(lambda a, b: jnp.sum(jnp.matmul(a, b) ** 2), (0, 1)), a, b)
  assert both.flops == 3 * 2 * 3 * 5 * 7


def test_loops_count_as_often_as_they_run():
  x, w = shape(4, 4), shape(6, 4, 4)
  scan = lambda x, w: jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]
  assert work(scan, x, w).flops == 6 * 2 * 64
  layer = jax.checkpoint(lambda x, w: (jnp.tanh(x @ w), None))
  recomputed = jax.grad(lambda x, w: jnp.sum(jax.lax.scan(layer, x, w)[0]))
  assert work(recomputed, x, w).flops == 6 * 2 * 64 * 3  # again, and for x (w is constant here)
  token_loop = lambda x, w: jax.lax.while_loop(
    lambda s: s[0] < 9, lambda s: (s[0] + 1, s[1] @ w[0]), (0, x)
  )[1]
  assert work(token_loop, x, w, loop=9).flops == 9 * 2 * 64


def test_only_one_branch_of_a_choice_counts():
  x = shape(4, 4)
  choose = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)
  assert work(choose, x).flops == 2 * 2 * 64


def test_a_transformer_is_two_operations_a_weight_and_token_and_attention(tiny_architecture):
  a, batch, length = tiny_architecture, 3, 20
  params = jax.eval_shape(lambda key: init_params(a, key), jax.random.key(0))
  forward = lambda params, tokens: Transformer(a).apply({"params": params}, tokens).hidden
  found = work(forward, params, jax.ShapeDtypeStruct((batch, length), jnp.int32))
  weights = sum(leaf.size for name, leaf in params["layers"].items() if not name.endswith("norm"))
  attention = (
    2 * 2 * batch * a.n_heads * length * length * a.head_dim * a.n_layers
  )  # scores and mixing
  assert found.flops == 2 * weights * batch * length + attention


@pytest.mark.parametrize(("kernel", "products"), [("off", 4), ("on", 5)])
def test_eight_devices_share_the_scores_and_their_gradients_evenly(kernel, products):
  """Rows by data and fsdp, vocabulary by tensor: the logits once, again for the gradient (twice by the kernel), and two
  gradients. Inside the kernel's shard_map shapes are one device's already."""
  mesh = AbstractMesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Explicit,) * 3)
  at = lambda dtype, sizes, *axes: jax.ShapeDtypeStruct(
    sizes, dtype, sharding=NamedSharding(mesh, P(*axes))
  )
  rows = ("data", "fsdp")
  arguments = (
    at(jnp.float32, (16, 32, 64), rows),
    at(jnp.float32, (1024, 64), "tensor", "fsdp"),
    at(jnp.int32, (16, 32), rows),
  )
  with jax.sharding.use_abstract_mesh(mesh):
    loss = lambda *arguments: token_scores(*arguments, kernel=kernel).logprob.sum()
    found = work(jax.grad(loss, (0, 1)), *arguments)
  assert found.flops == products * 2 * 16 * 32 * 64 * 1024 / 8


@pytest.mark.parametrize(
  ("tree", "expected"), [({"a": shape(3, 4), "b": jax.ShapeDtypeStruct((5,), jnp.int8)}, 53)]
)
def test_bytes_of_a_tree(tree, expected):
  assert held_bytes(tree) == expected
