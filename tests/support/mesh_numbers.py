"""Run as a process of its own with 8 CPU devices: a family's numbers without and on the first N meshes, as JSON.

JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=8 python tests/support/mesh_numbers.py FAMILY N [RANK]

With a rank, adapters of it are trained on a frozen base.
"""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nla_jax.decoding.explanations import sample
from nla_jax.decoding.loop import Draws, Sampling
from nla_jax.models import token_scores
from nla_jax.models.architectures import Architecture, RopeScaling
from nla_jax.models.lora import Lora, adapter_params, joined, split, variables
from nla_jax.models.parameters import as_base, init_params, transformer, unembedding
from nla_jax.models.reconstructor import Reconstructor, reconstructor_params
from nla_jax.models.verbalizer import Verbalizer, verbalizer_params
from nla_jax.parallel import sharding
from nla_jax.parallel.mesh import make_mesh
from nla_jax.training import losses
from nla_jax.training.optimizer import create_state, guarded_update

MESHES = ((2, 2, 2), (1, 2, 4), (8, 1, 1), (1, 8, 1), (1, 1, 1))
COMMON = dict(
  vocab_size=304,
  d_model=32,
  n_layers=3,
  n_heads=4,
  n_kv_heads=2,
  head_dim=8,
  d_ff=48,
  rope_theta=1e4,
  rms_eps=1e-5,
  max_positions=512,
)
FAMILIES = {
  "llama": dict(tied=False, rope_scaling=RopeScaling(kind="llama3", factor=8.0)),
  "qwen2": dict(tied=True, attention_bias=True),
  "qwen3": dict(tied=True, qk_norm=True),
  "gemma3_text": dict(
    tied=True,
    qk_norm=True,
    activation="gelu_tanh",
    norm_offset=1.0,
    embedding_scale=32**0.5,
    sandwich_norm=True,
    query_scale=0.3,
    rope_theta_local=1e3,
    windows=(4, 4, 0),
  ),
}
BATCH, GROUP, ANSWER, STEPS = 16, 4, 12, 3


def parameters(architecture: Architecture):
  """Random host parameters, all leaves of deviation 0.3."""
  shapes = jax.eval_shape(lambda key: init_params(architecture, key), jax.random.key(0))
  random = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: random.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)


def run(family: str, lora: Lora | None = None) -> dict:
  """Losses of both supervised trainings, sampled tokens, and the losses of a policy update, in the mesh in context."""
  architecture = Architecture(family=family, **COMMON, **FAMILIES[family])
  base = parameters(architecture)
  random = np.random.default_rng(1)
  vectors = random.normal(size=(BATCH, 32)).astype(np.float32)
  tokens = random.integers(0, 304, (BATCH, ANSWER)).astype(np.int32)
  lengths = random.integers(1, ANSWER + 1, BATCH).astype(np.int32)
  before, after = np.arange(7, dtype=np.int32), np.array([50, 51, 52], np.int32)
  av, ar = (
    Verbalizer(architecture, 3.0, remat=True, lora=lora),
    Reconstructor(architecture.lower(2), remat=True, lora=lora),
  )
  adapters = {"av": None, "ar": None}
  if lora:
    # Laid out before it is rounded, as a base that was read from a file is.
    base = as_base(sharding.shard_params(base))
    adapters = {
      name: jax.tree.map(np.asarray, adapter_params(model.architecture, lora, jax.random.key(2)))
      for name, model in (("av", av), ("ar", ar))
    }
  optimizer = optax.adam(1e-2)
  create = jax.jit(lambda params: create_state(params, optimizer))
  found = {}

  def scores(params, batch):
    hidden = av.apply(variables(params), before, after, batch["vectors"], batch["tokens"])
    return token_scores.token_scores(
      hidden, unembedding(transformer(params)), batch["tokens"], chunk=32
    )

  def av_loss(params, batch):
    """The supervised loss or the policy's: one program for both, since compiling is what takes long here."""
    of = scores(params, batch)
    old, settings = batch["old"], losses.PolicySettings()
    policy = losses.policy_loss(
      of, old, old, batch["advantages"], batch["mask"], settings, kl_weight=0.01
    ).loss
    return jnp.where(batch["is_policy"], policy, losses.sft_loss(of, batch["mask"]))

  def ar_loss(params, batch):
    predicted = ar.apply(variables(params), before, batch["tokens"], batch["lengths"])
    return jnp.mean((predicted / 10 - batch["vectors"]) ** 2)

  @functools.partial(jax.jit, static_argnums=0)
  def update(loss, state, batch, frozen):
    value, grads = jax.value_and_grad(lambda own: loss(joined(own, frozen), batch))(state.params)
    return guarded_update(state, grads, optimizer, 1.0)[0], value

  def train(name, params, loss, batch):
    own, frozen = split(sharding.shard_params(params))
    state = create(own)
    for tree in (state.opt_state[0].mu, state.opt_state[0].nu):
      same = jax.tree.map(
        lambda m, p: m.sharding.is_equivalent_to(p.sharding, m.ndim), tree, state.params
      )
      assert all(jax.tree.leaves(same)), "the optimizer's state is not sharded like its parameters"
    curve = []
    for _ in range(STEPS):
      state, value = update(
        loss, state, {**sharding.shard_rows(batch), "is_policy": name == "rl_av"}, frozen
      )
      curve.append(float(value))
    found[name] = curve
    return joined(state.params, frozen)

  mask = np.arange(ANSWER)[None] < lengths[:, None]
  batch = {
    "vectors": vectors,
    "tokens": tokens,
    "mask": mask,
    "lengths": lengths,
    "old": np.zeros((BATCH, ANSWER), np.float32),
    "advantages": random.normal(size=BATCH).astype(np.float32),
  }
  trained = train("sft_av", verbalizer_params(base, 32, "scalar", adapters["av"]), av_loss, batch)
  fresh = reconstructor_params(base, 1, adapters["ar"])
  train("sft_ar", fresh if lora else jax.tree.map(np.asarray, fresh), ar_loss, batch)
  few = vectors[: BATCH // GROUP]  # on some meshes fewer than the devices that share rows
  rollout = sample(
    trained,
    jnp.asarray(before),
    jnp.asarray(after),
    sharding.shard_rows(few),
    Draws(jax.random.key(0), sharding.shard_rows(np.arange(BATCH, dtype=np.int32))),
    model=av,
    sampling=Sampling(stop_ids=(9,), max_new_tokens=ANSWER, bucket=4),
  )
  found["tokens"], found["logprobs"] = (
    sharding.fetch(rollout.tokens).tolist(),
    float(rollout.logprobs.sum()),
  )
  rolled = {
    **batch,
    "tokens": sharding.fetch(rollout.tokens),
    "old": sharding.fetch(rollout.logprobs),
    "vectors": np.repeat(few, GROUP, axis=0),
  }
  own, frozen = split(trained)
  train("rl_av", joined(jax.tree.map(np.asarray, own), frozen), av_loss, rolled)
  return found


def main() -> None:
  family, count, rank = sys.argv[1], int(sys.argv[2]), int((*sys.argv, "0")[3])
  lora = Lora(rank, 2.0 * rank) if rank else None
  out = {"none": run(family, lora)}
  for shape in MESHES[:count]:
    with jax.set_mesh(make_mesh(*shape)):
      out[str(shape)] = run(family, lora)
  json.dump(out, sys.stdout)


if __name__ == "__main__":
  main()
