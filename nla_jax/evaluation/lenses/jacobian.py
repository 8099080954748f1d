"""The Jacobian lens: what the later blocks make of an activation to first order, averaged over contexts.

  J = mean over documents and positions p of  Σ over p' ≥ p of  ∂ (last block's output at p') / ∂ (block K's at p)

Positions are those of `samples.valid_positions`. One pull-back of a unit vector that stands at every p' gives the sum
at every p at once, since a block's output depends on no later token. Each output dimension is averaged over a few
documents of its own: the errors of dimensions are then independent and average out in a logit, which sums over them.
Source: Gurnee et al., Verbalizable Representations Form a Global Workspace in Language Models, 2026.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.decoding.residuals import residuals
from nla_jax.evaluation.lenses.lens import Lens
from nla_jax.evaluation.lenses.samples import FIRST
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import FROZEN
from nla_jax.models.transformer import Transformer
from nla_jax.reading.complete import Target

_AT_ONCE = 16  # output dimensions


def fit(
  target: Target, layer: int, texts: Sequence[Sequence[int]], *, documents: int, seed: int
) -> Lens:
  """Fits a Jacobian lens.

  Args:
    target: the whole model.
    layer: K, 0-based.
    texts: token ids of training documents, each longer than `samples.FIRST` + 1.
    documents: that each output dimension is averaged over; those of `texts` are taken in turn.
    seed: of which dimension takes which documents.
  """
  architecture, params = target.loaded
  if layer + 1 == architecture.n_layers:
    return Lens()  # no block is left

  # 1. Where every text begins: the output of block K at all of its tokens.
  places = [range(len(one)) for one in texts]
  read = residuals(
    params, texts, places, architecture=architecture, layer=layer, dtype=target.model.dtype
  )
  length = max(map(len, texts))
  padded = [np.pad(one, ((0, length - len(one)), (0, 0))) for one in read]

  # 2. Dimensions are dealt to documents: each round deals all of them once.
  d = architecture.d_model
  model, later = _later(target, layer, length)
  random, found, text = np.random.default_rng(seed), np.zeros((d, d), np.float32), 0
  for _ in range(documents):
    order = random.permutation(d)
    for start in range(0, d, _AT_ONCE):
      # One shape: the last few are filled up with copies.
      mine = order[np.minimum(np.arange(start, start + _AT_ONCE), d - 1)]
      n = len(texts[text])
      rows = _rows(later, padded[text], np.arange(length) < n, mine, model=model)
      wanted = order[start : start + _AT_ONCE]
      found[wanted] += np.asarray(rows)[: len(wanted)] / documents
      text = (text + 1) % len(texts)
  return Lens(found)


def _later(target: Target, layer: int, length: int) -> tuple[Transformer, Any]:
  """The blocks above K as a model of their own, whose embedding of token i is the residual at position i."""
  architecture, base = target.model.architecture, target.params["base"]
  n = architecture.n_layers - layer - 1
  above: Architecture = dataclasses.replace(
    architecture,
    n_layers=n,
    vocab_size=length,
    embedding_scale=1.0,
    tied=True,
    windows=None if architecture.windows is None else architecture.windows[layer + 1 :],
  )
  model = Transformer(above, n - 1, target.model.dtype, lora=FROZEN)
  return model, jax.tree.map(lambda leaf: leaf[layer + 1 :], base["layers"])


@functools.partial(jax.jit, static_argnames="model")
def _rows(layers: Any, read, valid, dimensions, *, model: Transformer):
  """[k, d] rows of one text's mean Jacobian.

  Args:
    layers: of the blocks above K.
    read: [length, d] output of block K.
    valid: [length] which tokens are the text's own.
    dimensions: [k] of the last block's output.
    model: of these blocks.
  """
  length = len(read)

  def last(read):
    tree = {"params": {}, "frozen": {"embedding": read, "layers": layers}}
    return model.apply(tree, jnp.arange(length)[None], valid=valid[None]).hidden[0]

  _, pull = jax.vjp(last, read)
  place = jnp.arange(length)
  counted = (place >= FIRST) & (place < jnp.sum(valid) - 1)

  def row(dimension):
    unit = jnp.zeros_like(read).at[:, dimension].set(counted.astype(read.dtype))
    (gradient,) = pull(unit)
    return jnp.sum(jnp.where(counted[:, None], gradient, 0.0), axis=0) / jnp.sum(counted)

  return jax.vmap(row)(dimensions)
