"""Trains the adapters of an organism: next-token prediction of documents and answers on a frozen base."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from nla_jax.bucket import Place
from nla_jax.models.language_model import LanguageModel
from nla_jax.models.lora import Lora, adapter_params, joined, variables
from nla_jax.models.parameters import transformer, unembedding
from nla_jax.models.token_scores import token_scores
from nla_jax.organisms.examples import Rows
from nla_jax.parallel import sharding
from nla_jax.training import losses, sft
from nla_jax.training.loop import Session

_WATCHED = 16  # rows that no step sees, behind six points of the curve


def language_loss(
  params: Any, batch: dict[str, jax.Array], model: LanguageModel
) -> Float[jax.Array, ""]:
  """Nats a learned token. The batch has tokens and mask [n, length], padded on the right."""
  tokens, mask = batch["tokens"], batch["mask"]
  hidden = model.apply(variables(params), tokens[:, :-1])
  scores = token_scores(hidden, unembedding(transformer(params)), tokens[:, 1:], model.dtype)
  return losses.sft_loss(scores, mask[:, 1:])


def train(
  c: ConfigDict, folder: Place, base: Any, architecture: Any, rows: Rows, *, dtype, note_progress
) -> tuple[Lora, Any]:
  """Adapters after all steps, going on from the newest checkpoint in `folder`.

  Args:
    c: the organism's config.
    folder: of the curve and the checkpoints.
    base: the base model's tree, as `as_base` gives it.
    architecture: of the base.
    rows: examples; the last few are watched and not trained on.
    dtype: of the operands of matrix products.
    note_progress: called after each checkpoint.

  Returns:
    How the base is adapted, and {"layers": {…}}.
  """
  lora = Lora(c.lora.rank, c.lora.alpha, tuple(c.lora.targets))
  model = LanguageModel(architecture, dtype, lora)

  # B is zero at first: the organism starts as its base.
  fresh = adapter_params(architecture, lora, jax.random.key(c.seed))
  params = joined({"transformer": sharding.shard_params(fresh)}, base)

  # A seeded sample of both documents and chats is kept aside, so that the curve shows both.
  order = np.random.default_rng(c.seed).permutation(len(rows))
  kept = min(_WATCHED, len(rows) // 4)
  watched, seen = rows.__getitems__(order[:kept]), rows.__getitems__(order[kept:])
  loss = functools.partial(language_loss, model=model)
  score = jax.jit(loss)

  def watch(now: Any) -> dict[str, float]:
    return {"loss_held_out": float(score(now, sharding.shard_rows(watched)))} if kept else {}

  session = Session(
    "organism training", folder, c.seed, c.checkpoint_every, c.guard_limit, note_progress
  )
  found = sft.fit(session, c.training, params, loss, Rows(**seen), watch)
  return lora, jax.tree.map(jnp.asarray, found["transformer"])
