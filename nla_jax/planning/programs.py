"""The programs of a config, as the stages run them, with the shapes and layouts of their arguments.

Every function here is the one that a stage calls; only the arrays are missing. A program also knows what lies on the
devices beside its arguments while it runs: in RL that is the frozen reference, both models and both optimizers.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nla_jax.autoencoder.pair import Pair, PairSettings, make_pair
from nla_jax.autoencoder.prompts import Prompts, make_prompts
from nla_jax.autoencoder.rows import ar_length
from nla_jax.data import extraction
from nla_jax.decoding import explanations as sampler
from nla_jax.interop.base_models.find import cached_directory
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.models.architectures import Architecture
from nla_jax.models.parameters import init_params, lower_params
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.parallel import sharding
from nla_jax.planning.shapes import ARCHITECTURES
from nla_jax.planning.work import held_bytes
from nla_jax.training import sft
from nla_jax.training.optimizer import create_state, make_optimizer
from nla_jax.training.rl import Learner, PolicyBatch, frozen, teacher_rows

# Tokens of the reference templates where no tokenizer is at hand: what Qwen's and Llama's need, rounded up.
_ASSUMED = {
  "before": 144,
  "after": 16,
  "close": 2,
  "around_answer": 16,
  "ar_before": 8,
  "around_explanation": 8,
}


class Program(NamedTuple):
  """One compiled program.

  Attributes:
    name: of the stage, and of the part where a stage has several.
    function: jitted.
    arguments: trees of `jax.ShapeDtypeStruct` with shardings.
    keywords: static ones.
    beside: what else is on the devices while it runs, as such trees.
    loop: trips of its token loop, at most.
    rows: activations or explanations that one call works on.
    calls: in the config's whole run; 0 where the config does not say (the number of documents).
  """

  name: str
  function: Any
  arguments: tuple
  keywords: dict[str, Any]
  beside: tuple
  loop: int
  rows: int
  calls: int


class Model(NamedTuple):
  """What the programs need to know of a config's model.

  Attributes:
    architecture: of the target.
    prompts: real ones, or zeros of assumed lengths.
    answer: tokens of a supervised answer, padding included.
    ar_input: tokens of an AR input after its shared beginning, padding included.
    counted: whether a tokenizer counted the tokens (else they are those of the reference templates).
  """

  architecture: Architecture
  prompts: Prompts
  answer: int
  ar_input: int
  counted: bool


def find_model(config) -> Model:
  """The config's model from where it lies or, of a hub id that is not here, from the table. Outside of any mesh."""
  round_up = lambda n: -(-n // 8) * 8
  if config.model in ARCHITECTURES and cached_directory(config.model) is None:
    ids = lambda name: np.zeros(_ASSUMED[name], np.int32)
    prompts = Prompts(
      config.prompts.av,
      config.prompts.ar,
      "",
      0,
      0,
      0,
      ids("before"),
      ids("after"),
      (0,) * _ASSUMED["close"],
      ids("ar_before"),
      (0,) * _ASSUMED["around_explanation"],
    )
    longest = config.rl.max_new_tokens - _ASSUMED["around_answer"] + _ASSUMED["around_explanation"]
    return Model(
      ARCHITECTURES[config.model],
      prompts,
      round_up(config.teacher.max_tokens + _ASSUMED["around_answer"]),
      round_up(longest),
      False,
    )
  found = load_pretrained(config.model, weights=False)
  prompts = make_prompts(
    found.tokenizer, config.prompts.av, config.prompts.ar, config.prompts.marker or None
  )
  around = len(prompts.answer_ids(found.tokenizer, ""))
  ar_input = ar_length(max(config.rl.max_new_tokens - around, 1), prompts, found.tokenizer)
  return Model(
    found.architecture, prompts, round_up(config.teacher.max_tokens + around), ar_input, True
  )


def rows_of_run(config) -> dict[str, int]:
  """Activations of the whole run and of RL's split, as far as the config says; 0 where it does not."""
  documents = config.data.max_documents
  rows = documents * config.data.positions_per_document
  return {
    "documents": documents,
    "rows": rows,
    "rl": round(rows * (1 - config.data.held_out) * config.data.rl),
  }


def programs(config, model: Model, dtype, key_dtype) -> list[Program]:
  """All programs of a run, in the order of its stages, for the mesh in context.

  Args:
    config: the run's.
    model: from `find_model`.
    dtype: operands of matrix products on those machines.
    key_dtype: `jax.random.key(0).dtype`; making a key here would need a device of the mesh.
  """
  architecture, prompts = model.architecture, model.prompts
  pair = make_pair(
    architecture,
    None,
    prompts,
    PairSettings(
      layer=config.layer,
      scale=1.0,
      mode=config.inject.mode,
      map=config.inject.map,
      max_new_tokens=config.rl.max_new_tokens,
      dtype=dtype,
      remat=config.remat,
      temperature=config.rl.temperature,
      kernel=config.kernel,
    ),
  )
  key = jax.ShapeDtypeStruct((), key_dtype)
  base = jax.eval_shape(functools.partial(init_params, architecture), key)
  av = placed(
    jax.eval_shape(lambda p: verbalizer_params(p, architecture.d_model, config.inject.map), base)
  )
  ar = placed(jax.eval_shape(lambda p: reconstructor_params(p, config.layer), base))
  return [
    _extract(config, architecture, base, dtype),
    *_supervised(config, pair, model, av, ar),
    *_reinforced(config, pair, model, av, ar, key),
  ]


def placed(tree):
  """Shapes of a parameter or optimizer tree in its layout on the mesh in context."""
  with_layout = lambda x, layout: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout)
  return jax.tree.map(with_layout, tree, sharding.parameter_shardings(tree))


def _rows(*shape: int, dtype=jnp.float32):
  """The shape of an array whose leading axis is rows, in the layout that `sharding.shard_rows` gives it."""
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.batch_sharding(shape))


def _extract(config, architecture: Architecture, base, dtype) -> Program:
  data = config.data
  size, length = extraction.batch_shape(data, data.max_tokens)
  if not data.next_tokens:
    base = jax.eval_shape(lambda p: lower_params(p, config.layer + 1), base)
  chosen = jax.ShapeDtypeStruct((size * data.positions_per_document,), jnp.int32)
  return Program(
    "extract",
    extraction.make_reader(config, architecture, dtype),
    (placed(base), _rows(size, length, dtype=jnp.int32), chosen, chosen),
    {},
    (),
    1,
    size * data.positions_per_document,
    -(-rows_of_run(config)["documents"] // size),
  )


def _supervised(config, pair: Pair, model: Model, av, ar) -> list[Program]:
  d = pair.verbalizer.architecture.d_model
  out = []
  for name, loss, params, settings, length, more in (
    (
      "sft ar",
      sft.ar_loss,
      ar,
      config.ar,
      model.ar_input,
      lambda n: {"lengths": _rows(n, dtype=jnp.int32)},
    ),
    (
      "sft av",
      sft.av_loss,
      av,
      config.av,
      model.answer,
      lambda n: {"mask": _rows(n, model.answer, dtype=bool)},
    ),
  ):
    optimizer, n = make_optimizer(settings, settings.steps), settings.batch
    state = placed(jax.eval_shape(functools.partial(create_state, optimizer=optimizer), params))
    batch = {"activations": _rows(n, d), "tokens": _rows(n, length, dtype=jnp.int32), **more(n)}
    update = sft.make_update(functools.partial(loss, pair=pair), optimizer, settings)
    out.append(Program(name, update, (state, batch), {}, (), 1, n, settings.steps))
  return out


def _reinforced(config, pair: Pair, model: Model, av, ar, key) -> list[Program]:
  """A step of RL: rollout, the AR's reward and regression, the reference's scores, the AV's update."""
  rl, d = config.rl, pair.verbalizer.architecture.d_model
  n, cap = rl.activations * rl.group, rl.max_new_tokens
  reference = placed(jax.eval_shape(functools.partial(frozen, dtype=pair.verbalizer.dtype), av))
  learner = Learner(pair, rl, reference)
  states = {name: placed(state) for name, state in jax.eval_shape(learner.create, av, ar).items()}
  both, vectors, tokens = (states["av"], states["ar"]), _rows(n, d), _rows(n, cap, dtype=jnp.int32)
  others = tuple(state for name, state in states.items() if name not in ("av", "ar"))
  rest = (*both[1:], both[0].opt_state, learner.reference, *others)
  gold = teacher_rows(rl)
  ar_rows = (
    _rows(n + gold, model.ar_input, dtype=jnp.int32),
    _rows(n + gold, dtype=jnp.int32),
    _rows(n + gold, d),
    _rows(n + gold, dtype=bool),
  )
  update_ar = Program(
    "rl ar",
    learner.update_ar,
    (states["ar"], *ar_rows),
    {},
    (states["av"], learner.reference, *others),
    1,
    n,
    rl.steps,
  )
  steps = rl.steps - rl.ar_steps
  scores = Program(
    "rl scores",
    learner.scores,
    (learner.reference, vectors, tokens),
    {},
    (*both, *others),
    1,
    n,
    steps * (1 if rl.epochs * rl.minibatches == 1 else 2),
  )
  part = n // rl.minibatches
  per_token = lambda dtype=jnp.float32: _rows(part, cap, dtype=dtype)
  old = None if rl.epochs * rl.minibatches == 1 else per_token()
  batch = PolicyBatch(
    _rows(part, d),
    per_token(jnp.int32),
    per_token(bool),
    _rows(part),
    old,
    per_token(),
    per_token(),
  )
  update_av = Program(
    "rl av",
    learner.update_av,
    (states["av"], batch, jax.ShapeDtypeStruct((), jnp.float32)),
    {},
    (states["ar"], learner.reference, *others),
    1,
    part,
    steps * rl.epochs * rl.minibatches,
  )
  return [*_rollout(config, pair, av, key, rest), update_ar, scores, update_av]


def _rollout(config, pair: Pair, av, key, beside: tuple) -> list[Program]:
  """The sampler's programs: the copy of the AV that it reads (of the parameter when most is held), the prompts, and
  the tokens, here of every answer to the cap with the largest cache: more than a rollout ever takes."""
  rl, model, stop = config.rl, pair.verbalizer, pair.prompts.stop_id
  n, cap, dtype = rl.activations * rl.group, rl.max_new_tokens, model.dtype
  ids = lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.int32)
  number = jax.ShapeDtypeStruct((), jnp.float32)
  copy = _given_back(functools.partial(sampler.decode_copy, dtype=dtype), av)
  prompt = (
    copy,
    ids(pair.prompts.before),
    ids(pair.prompts.after),
    _rows(rl.activations, model.architecture.d_model),
    key,
    _rows(n, dtype=jnp.int32),
    number,
  )
  fixed = {"model": model, "stop_id": stop, "greedy": False}
  sizes = {"max_new_tokens": cap, "room": cap}
  state = _given_back(functools.partial(sampler.prefill, **fixed, **sizes), *prompt)
  leaves, copies = jax.tree.leaves(av), jax.tree.leaves(copy)
  order = sampler.copy_order(leaves)
  there = lambda i: [copies[j] for j in order[: order.index(i)]]  # copied before it
  worst = max(order, key=lambda i: held_bytes(there(i)) + 2 * held_bytes(copies[i]))
  copied = {"spec": copies[worst].sharding.spec, "dtype": copies[worst].dtype}
  others = (leaves[:worst], leaves[worst + 1 :], there(worst))
  return [
    Program(
      "rl copy", sampler.leaf_copy, (leaves[worst],), copied, (*others, *beside), 1, n, rl.steps
    ),
    Program("rl prompts", sampler.prefill, prompt, fixed | sizes, (av, *beside), 1, n, rl.steps),
    Program(
      "rl tokens",
      sampler.decode,
      (copy, state, key, number, ids(0)),
      fixed,
      (av, *beside),
      cap,
      n,
      rl.steps,
    ),
  ]


def _given_back(function, *arguments):
  """Shapes of a function's results in the layout that it gives them."""
  mesh = jax.sharding.get_mesh()
  spec = lambda x: P() if x.sharding is None else x.sharding.spec
  place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec(x)))
  return jax.tree.map(place, jax.eval_shape(function, *arguments))
