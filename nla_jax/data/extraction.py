"""Extraction: documents go through the target, and the residuals after block K into the store.

What a process holds does not grow with the corpus, but for a mark and a few numbers a document (`nla_jax.data.known`).
"""

import contextlib
import functools
import math
from collections.abc import Callable

import jax
import numpy as np

from nla_jax import files
from nla_jax.autoencoder.chat import template_hash
from nla_jax.autoencoder.tokens import refuse_beyond
from nla_jax.data.left_out import notes, part_notes
from nla_jax.data.selected import Selection
from nla_jax.data.selection import select
from nla_jax.data.shards import write_shards
from nla_jax.data.store import rounding
from nla_jax.data.store.writer import ArraySpecs, StoreWriter
from nla_jax.errors import NLAError
from nla_jax.models import target
from nla_jax.models.parameters import init_params
from nla_jax.parallel import distributed
from nla_jax.parallel.mesh import own_mesh_of, own_shape
from nla_jax.progress import say


def make_reader(config, architecture, dtype):
  """Returns the compiled forward of extraction: `target.read` of (params, tokens, row, position)."""
  return jax.jit(
    functools.partial(
      target.read,
      architecture=architecture,
      layer=config.layer,
      top_k=config.data.next_tokens,
      dtype=dtype,
    )
  )


def extract(config, pretrained, load_params: Callable, path: str, tokens: str, dtype) -> dict:
  """Writes the activation store at `path`. Resumes a store that was interrupted.

  1. The corpus is read and tokenised in blocks, positions and splits are chosen.
  2. The store is opened; the first process writes its documents.
  3. Each shard that is missing is read from the target and written, by one of the processes.
  4. The manifest closes the store, and the blocks are deleted.

  Args:
    config: the run's.
    pretrained: the target's architecture, tokenizer and hashes.
    load_params: gives the target's parameters up to a block, or all of them for None.
    path: folder or KvStore URL.
    tokens: likewise, for the blocks; all processes share both.
    dtype: that the target computes in.

  Returns:
    facts for the stage's manifest; of several sources, what each gave as parts.

  Raises:
    NLAError: there is no such layer, the corpus or the store cannot be used, or an activation is not finite.
    PreemptedError: the process was asked to stop; what is written stays.
  """
  data, architecture = config.data, pretrained.architecture
  if not 0 <= config.layer < architecture.n_layers:
    raise NLAError(
      f"config.layer={config.layer}: {config.model} has blocks 0..{architecture.n_layers - 1}"
    )

  rounding.check(data.rows, architecture.d_model)

  # 1. The corpus.
  say("extract: reading and tokenising the corpus")
  corpus = select(config, pretrained.tokenizer, tokens, pretrained.tokenizer_hash)
  for note in [*part_notes(corpus.parts), *(said := notes(corpus.counts))]:
    say(f"extract: {note}")

  # 2. The store.
  arrays = _arrays(architecture.d_model, data.rows, data.next_tokens)
  writer = _open_store(path, arrays, corpus, config, pretrained)

  # 3. The shards.
  own = _computes_alone(config, architecture)
  reader = make_reader(config, architecture, dtype)
  read = functools.partial(reader, _load(config, load_params, own))
  write_shards(writer, corpus, read, config, own)

  # 4. The manifest.
  distributed.wait("shards written")
  if distributed.is_first():
    writer.finish({"layer": config.layer, "rows": corpus.rows_by_split})
    files.remove_all(tokens)
  return {
    "rows_by_split": corpus.rows_by_split,
    "d_model": architecture.d_model,
    "layer": config.layer,
    "chat_template": template_hash(pretrained.tokenizer) if corpus.conversations else None,
    **_facts(corpus, said),
  }


def _load(config, load_params: Callable, own: bool):
  """The target's parameters, on the devices of this process or of all."""
  # What is above block K is loaded only where the teacher asks for next tokens.
  layer = None if config.data.next_tokens else config.layer
  with own_mesh_of(config.mesh) if own else contextlib.nullcontext():
    return load_params(layer)


def _computes_alone(config, architecture) -> bool:
  """Whether the devices of each process can hold the target by themselves, shared as the config says."""
  if distributed.process()[1] == 1:
    return False  # on all devices, as the mesh that is set has them
  shape, fits = own_shape(config.mesh), False
  if shape is not None:
    layer = None if config.data.next_tokens else config.layer
    make = functools.partial(init_params, architecture, stop_layer=layer)
    leaves = jax.tree.leaves(jax.eval_shape(make, jax.random.key(0)))
    share = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / math.prod(shape[1:])
    memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", math.inf)
    # Half of it is left to the batches.
    fits = share < memory / 2
  # All do the same: where one did not compute with the others, they would wait for it.
  return bool(np.concatenate(distributed.gather_rows(np.array([fits], np.int32))).all())


def _facts(corpus: Selection, said: list[str]) -> dict:
  """What a selection says of itself."""
  return {
    "rows": len(corpus),
    "documents": len(corpus.documents),
    "groups": corpus.groups,
    "left_out": corpus.counts._asdict(),
    "notes": said,
    **_parts(corpus),
  }


def _parts(corpus: Selection) -> dict:
  """What each source gave, where there are several."""
  parts = {name: part._asdict() for name, part in corpus.parts.items()}
  return {"parts": parts} if parts else {}


def _arrays(d_model: int, kept_as: str, next_tokens: int) -> ArraySpecs:
  """The arrays of the store, and the shape and dtype of a row of each."""
  arrays = {
    **rounding.array_specs(kept_as, d_model),
    "document": ((), "int32"),
    "position": ((), "int32"),
    "norm": ((), "float32"),
  }
  if next_tokens:
    arrays["next_tokens"] = ((next_tokens,), "int32")
    arrays["next_logprobs"] = ((next_tokens,), "float32")
  return arrays


def _open_store(
  path: str, arrays: ArraySpecs, corpus: Selection, config, pretrained
) -> StoreWriter:
  """Opens the store in every process; the first one makes it and writes the documents."""
  # The others find the layout that the first has written, and do not write it at the same time.
  if not distributed.is_first():
    distributed.wait("store begun")

  made_from = {
    "model": pretrained.model_hash,
    "tokenizer": pretrained.tokenizer_hash,
    "layer": config.layer,
    "corpus": config.corpus,
    "seed": config.seed,
  }
  data = config.data
  # An id without a row in the embedding would be read as the last one, without a word.
  refuse_beyond(corpus.largest, pretrained.architecture.vocab_size, "the corpus")
  writer = StoreWriter(path, arrays, len(corpus), data.shard_rows, data.chunk_rows, made_from)

  if distributed.is_first():
    known = {"source": corpus.sources, "roles": corpus.roles}
    writer.write_documents(corpus.documents, [name for name, there in known.items() if there])
    distributed.wait("store begun")
  return writer
