"""The programs of a config, as the stages run them, with the shapes and layouts of their arguments.

Every function here is the one that a stage calls; only the arrays are missing. A program also knows what lies on the
devices beside its arguments while it runs: in RL that is the frozen reference, both models and both optimizers.
"""

import functools

import jax
import jax.numpy as jnp

from nla_jax.autoencoder.pair import Pair, PairSettings, make_pair
from nla_jax.data import extraction, shards
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import adapter_params, joined, split
from nla_jax.models.parameters import as_base, init_params, lower_params
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.planning.abstract import Program, ids, placed, rows
from nla_jax.planning.model import Model
from nla_jax.planning.rl_programs import reinforced
from nla_jax.training import sft
from nla_jax.training.optimizer import create_state, make_optimizer
from nla_jax.training.settings import adapters


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
      lora=adapters(config.lora),
      ar_lora=adapters(config.lora),
    ),
  )

  # Shapes of the three models, made by the functions that make the models.
  key = jax.ShapeDtypeStruct((), key_dtype)
  base = jax.eval_shape(functools.partial(init_params, architecture), key)
  av, ar = _models(config, pair, base, key)
  return [
    _extract(config, architecture, base, dtype),
    *_supervised(config, pair, model, av, ar),
    *reinforced(config, pair, model, av, ar, key),
  ]


def _models(config, pair: Pair, base, key) -> tuple[dict, dict]:
  """Shapes of the AV and of the AR; with adapters the frozen base in both trees is one and the same."""
  d_model, mode, layer = pair.verbalizer.architecture.d_model, config.inject.map, config.layer
  if pair.verbalizer.lora is None:
    av = jax.eval_shape(lambda p: verbalizer_params(p, d_model, mode), base)
    ar = jax.eval_shape(lambda p: reconstructor_params(p, layer), base)
    return placed(av), placed(ar)

  def trained(model, make, *options):
    fresh = functools.partial(adapter_params, model.architecture, model.lora)
    whole = jax.eval_shape(lambda p, k: make(p, *options, fresh(k)), base, key)
    return placed(split(whole)[0])

  av = trained(pair.verbalizer, verbalizer_params, d_model, mode)
  ar = trained(pair.reconstructor, reconstructor_params, layer)
  frozen = placed(jax.eval_shape(as_base, base))
  return joined(av, frozen), joined(ar, frozen)


def _extract(config, architecture: Architecture, base, dtype) -> Program:
  """The target's forward pass over a batch of documents."""
  data = config.data
  size, length = shards.batch_shape(data, data.max_tokens)
  # Without predictions of next tokens, nothing above block K is loaded.
  if not data.next_tokens:
    base = jax.eval_shape(lambda p: lower_params(p, config.layer + 1), base)

  n = size * data.positions_per_document
  arguments = (placed(base), rows(size, length, dtype=jnp.int32), ids(n), ids(n))
  reader = extraction.make_reader(config, architecture, dtype)
  return Program("extract", reader, arguments, rows=n, calls=-(-data.max_documents // size))


def _supervised(config, pair: Pair, model: Model, av, ar) -> list[Program]:
  """The update of each model's SFT, in the order in which the stage trains them."""
  ar_columns = {
    "tokens": rows(config.ar.batch, model.ar_input, dtype=jnp.int32),
    "lengths": rows(config.ar.batch, dtype=jnp.int32),
  }
  av_columns = {
    "tokens": rows(config.av.batch, model.answer, dtype=jnp.int32),
    "mask": rows(config.av.batch, model.answer, dtype=bool),
  }
  return [
    _sft_update("sft ar", functools.partial(sft.ar_loss, pair=pair), config.ar, ar, ar_columns),
    _sft_update("sft av", functools.partial(sft.av_loss, pair=pair), config.av, av, av_columns),
  ]


def _sft_update(name: str, loss, settings, params, columns: dict) -> Program:
  """The update that `sft.fit` compiles, of a batch with these columns beside the activations."""
  d_model = loss.keywords["pair"].verbalizer.architecture.d_model
  optimizer, n = make_optimizer(settings, settings.steps), settings.batch
  trained, base = split(params)
  state = placed(jax.eval_shape(functools.partial(create_state, optimizer=optimizer), trained))
  batch = {"activations": rows(n, d_model), **columns}
  update = sft.make_update(loss, optimizer, settings)
  return Program(name, update, (state, batch, base), rows=n, calls=settings.steps)
