"""Memory of the AV's supervised step on one TPU v5e chip that is not here: ours against a plain implementation.

  python benchmarks/av_memory.py                 # Qwen2.5-0.5B's shape, vocabulary 151,936; needs the extra `tpu`
  python benchmarks/av_memory.py --batches=4,8

Both are compiled by the TPU's own compiler for the same work: the reference template, answers of the teacher's length,
float32 masters, AdamW, bfloat16 operands. The plain one is what a careful user writes first: every row carries the
whole prompt, the loss is a log-softmax over the logits of all answer tokens, blocks are recomputed in the backward
pass or not. Peak is the compiler's: arguments, temporaries and code. Parameters and AdamW's state are the same in both,
so the difference lies in the rest, which is shown beside.
"""

import argparse
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp

from nla_jax.config import default_config
from nla_jax.models.injection import Injection
from nla_jax.models.parameters import unembedding
from nla_jax.models.products import einsum
from nla_jax.models.transformer import Transformer
from nla_jax.planning import plan
from nla_jax.planning.abstract import Program, placed
from nla_jax.planning.chips import size
from nla_jax.planning.compiled import Compiled, compile_program
from nla_jax.planning.model import find_model
from nla_jax.planning.topology import describe
from nla_jax.training.optimizer import create_state, guarded_update, make_optimizer

RESULTS = Path(__file__).parent / "results" / "av_memory.json"


def plain_update(architecture, scale: float, prompt: int, slot: int, dtype, remat: bool, settings):
  """A supervised update without shared prefix and without chunks: tokens [n, prompt + answer], slot at one position."""
  model, optimizer = (
    Transformer(architecture, None, dtype, remat),
    make_optimizer(settings, settings.steps),
  )

  def loss(params, batch):
    v = batch["activations"]
    v = scale * v / jnp.linalg.norm(v, axis=-1, keepdims=True)
    where = jnp.broadcast_to(jnp.arange(batch["tokens"].shape[1]) == slot, batch["tokens"].shape)
    hidden = model.apply(
      {"params": params["transformer"]}, batch["tokens"], injection=Injection(where, v)
    ).hidden
    logits = einsum(
      "bsd,vd->bsv", hidden[:, prompt - 1 : -1], unembedding(params["transformer"]), dtype
    )
    chosen = jnp.arange(logits.shape[-1]) == batch["tokens"][:, prompt:, None]
    logprob = jnp.sum(jnp.where(chosen, jax.nn.log_softmax(logits), 0.0), axis=-1)
    return -jnp.sum(logprob * batch["mask"]) / jnp.sum(batch["mask"])

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state, batch):
    value, grads = jax.value_and_grad(loss)(state.params, batch)
    state, norm = guarded_update(state, grads, optimizer, settings.clip)
    return state, value, norm

  return update


def measure(batch: int, topology) -> dict[str, dict | None]:
  """Compiles ours and both plain forms. Bytes on the device, or None where the compiler refuses."""
  config = default_config()
  config.model, config.layer, config.teacher.max_tokens = "Qwen/Qwen2.5-0.5B-Instruct", 16, 120
  config.av.batch = batch
  model = find_model(config)
  ours = plan.make_plan(config, topology, ("sft av",)).compiled[0]
  state, rows = ours.program.arguments
  prompt = len(model.prompts.before) + len(model.prompts.after)
  shape = lambda dtype: jax.ShapeDtypeStruct(
    (batch, prompt + model.answer), dtype, sharding=rows["tokens"].sharding
  )
  given = {"activations": rows["activations"], "tokens": shape(jnp.int32), "mask": rows["mask"]}
  out = {"ours": _bytes(ours)}
  for name, remat in (("plain", False), ("plain, blocks recomputed", True)):
    update = plain_update(
      model.architecture, 1.0, prompt, len(model.prompts.before), jnp.bfloat16, remat, config.av
    )
    state = jax.eval_shape(
      functools.partial(create_state, optimizer=make_optimizer(config.av, config.av.steps)),
      state.params,
    )
    layout = rows["tokens"].sharding.mesh
    with jax.set_mesh(layout):
      one = Program(name, update, (placed(state), given), rows=batch, calls=1)
      out[name] = _bytes(compile_program(one, topology))
  return out


def _bytes(one: Compiled) -> dict | None:
  if one.memory is None:
    return {"refused": one.needed}
  return {"peak": one.needed, "beside_state": one.needed - one.memory.arguments}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--batches", default="4,8,16,32")
  parser.add_argument("--topology", default="v5e:1x1")
  options = parser.parse_args()
  topology = describe(options.topology)
  results = {}
  for batch in map(int, options.batches.split(",")):
    results[batch] = measure(batch, topology)
    print(
      f"batch {batch}: "
      + "; ".join(
        f"{name} peak {size(one['peak'])} ({size(one['beside_state'])} beside parameters and optimizer)"
        if "peak" in one
        else f"{name} refused, {size(one['refused'])}"
        for name, one in results[batch].items()
      ),
      flush=True,
    )
  RESULTS.parent.mkdir(exist_ok=True)
  RESULTS.write_text(
    json.dumps({"topology": options.topology, "jax": jax.__version__, "batches": results}, indent=2)
    + "\n"
  )


if __name__ == "__main__":
  main()
