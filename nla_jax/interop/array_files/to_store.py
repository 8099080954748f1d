"""From arrays of activations in `npz` or `safetensors` files to an activation store.

A file holds

  activations  [N, d] floats                        needed
  tokens       [T] ids of all documents, one after another, with
  offsets      [documents + 1], where each begins   or, in place of both,
  tokens       [documents, L] with lengths [documents]; without lengths all are L long
  document     [N], which document a row is from; left out, row i is from document i
  position     [N], index of the row's token; left out, the last of its document
  ids, groups, splits, sources   [documents] strings; ids count where they are left out, groups are the ids
  metadata     {"model", "layer", "tokenizer", "corpus"}

Documents without a split are split as `docs/interchange.md` says. Rows keep the order of the files.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nla_jax.autoencoder.tokens import refuse_beyond
from nla_jax.data.positions import SPLITS, join_copies, split_groups, splits_needed
from nla_jax.data.store.documents import StoredDocument
from nla_jax.errors import NLAError, shown
from nla_jax.interop.array_files.reader import ArrayFile, open_array_file
from nla_jax.interop.base_models.record import hash_tokenizer
from nla_jax.interop.base_models.tokenizers import load_tokenizer
from nla_jax.interop.reference_data.reader import rows_per_group
from nla_jax.interop.store_rows import open_store, say_copies, write_shards
from nla_jax.progress import say
from nla_jax.workdir import STORE

_ONE = ("model", "layer", "tokenizer")  # of the metadata: files of one store have the same


class _Part(NamedTuple):
  """A file without its activations.

  Attributes:
    documents: whose split is "" where the file says none.
    document: [n] int32 index into `documents`.
    position: [n] int32.
  """

  documents: list[StoredDocument]
  document: np.ndarray
  position: np.ndarray


def to_store(
  paths: Sequence[str | Path],
  folder: str | Path,
  *,
  model: str | None = None,
  layer: int | None = None,
  held_out: float = 0.1,
  seed: int = 42,
) -> dict:
  """Writes `folder/activations/store`, or goes on where an earlier conversion was interrupted.

  Args:
    paths: files of one target and layer.
    folder: as above.
    model: the target, for its tokenizer; what the files' metadata says where None.
    layer: 0-based block; likewise.
    held_out: share of the documents that nothing is trained on, where the files say no splits.
    seed: of the splits.

  Returns:
    counts: rows, documents, rows_by_split, d_model, layer, groups, explanations (0).

  Raises:
    NLAError: the files contradict each other or themselves, or cannot be read or written.
  """
  # 1. What the files say, without the activations.
  files = [open_array_file(path) for path in paths]
  width = _width(files)
  said = _metadata(files, {"model": model, "layer": layer})
  tokenizer = load_tokenizer(said["model"])
  mark = _compared(tokenizer, said)
  parts = [_read_part(file, tokenizer, len(files) > 1) for file in files]

  # 2. The documents of all, with their splits.
  documents, copies = _with_splits(parts, held_out, seed)
  document, position = _rows_of(parts)
  groups = {one.group for part in parts for one in part.documents}
  say_copies(documents, document, position, copies, len(groups))

  # 3. The store.
  made_from = _made_from(files, said, {"tokenizer": mark, "seed": seed, "held_out": held_out})
  together = rows_per_group(width)
  writer = open_store(Path(folder) / STORE, len(document), width, made_from, together)
  writer.write_documents(documents)
  write_shards(writer, functools.partial(_activations, files, together), document, position)
  rows = Counter(documents[i].split for i in document.tolist())
  names = [file.path.name for file in files]
  origin = {"base_model": said["model"], "corpus": said.get("corpus", ""), "files": names}
  fields = {"layer": said["layer"], "rows": dict(sorted(rows.items()))}
  writer.finish(fields | {"converted": origin})
  return {
    "rows": len(document),
    "documents": len(documents),
    "d_model": width,
    "rows_by_split": fields["rows"],
    "layer": said["layer"],
    "explanations": 0,
    "groups": len({one.group for one in documents}),
  }


def _made_from(files: Sequence[ArrayFile], said: dict[str, Any], further: dict) -> dict[str, Any]:
  """All that decides what the store holds, so that a store of other files is not resumed."""
  named = {"model": said["model"], "layer": said["layer"], "corpus": said.get("corpus", "")}
  return {**named, **further, "arrays": [file.fingerprint for file in files]}


def _compared(tokenizer, said: dict[str, Any]) -> str:
  """The tokenizer's hash; says where the files name another."""
  mark = hash_tokenizer(tokenizer)
  if said.get("tokenizer", mark) != mark:
    # No error: a run may have given the same tokenizer another chat template.
    say(
      f"convert: the tokens are of another tokenizer or chat template than that of {said['model']}"
    )
  return mark


def _rows_of(parts: Sequence[_Part]) -> tuple[np.ndarray, np.ndarray]:
  """Document and position of the rows of all files, whose documents are counted through."""
  starts = np.cumsum([0, *(len(part.documents) for part in parts)])
  document = np.concatenate([part.document + start for part, start in zip(parts, starts)])
  return document.astype(np.int32), np.concatenate([part.position for part in parts])


def layer_of(paths: Sequence[str | Path]) -> int | None:
  """The layer that the first file's metadata names; None where it names none."""
  return open_array_file(paths[0]).metadata().get("layer")


def _width(files: Sequence[ArrayFile]) -> int:
  """The width of the activations. Raises NLAError where a file has none, or of another width or type."""
  widths = {}
  for file in files:
    if "activations" not in file:
      there = ", ".join(sorted(file.shapes)) or "none"
      raise NLAError(f"{file.path} has no array 'activations' [N, d]; its arrays are {there}")
    shape, dtype = file.shapes["activations"], file.dtypes["activations"]
    if len(shape) != 2 or not all(shape) or (dtype.kind != "f" and dtype.name != "bfloat16"):
      raise NLAError(
        f"{file.path} has 'activations' of {dtype} {list(shape)}; expected floats [N, d] of at least one row"
      )
    widths[shape[1]] = file.path
  if len(widths) > 1:
    said = ", ".join(f"{width} in {path}" for width, path in widths.items())
    raise NLAError(f"the activations are of several widths ({said}): one store holds one width")
  return next(iter(widths))


def _metadata(files: Sequence[ArrayFile], given: dict[str, Any]) -> dict[str, Any]:
  """What the caller and the files say of the target. Raises NLAError where they differ, or leave it open."""
  found = {name: value for name, value in given.items() if value is not None}
  for file in files:
    for name, value in file.metadata().items():
      # A model may lie elsewhere than where the file was made; its layer is what it is.
      if value is None or (name == "model" and given["model"]):
        continue
      if found.setdefault(name, value) != value and name in _ONE:
        raise NLAError(
          f"{file.path} has the {name} {shown(value)}, and {shown(found[name])} is asked for, or in another file: one "
          "store holds one target's layer"
        )

  for name, flag in (("model", "--model=NAME"), ("layer", "--layer=K")):
    if name not in found:
      raise NLAError(
        f"{files[0].path} does not say of which {name} its activations are; name it with {flag}"
      )
  layer = found["layer"]
  if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
    raise NLAError(f"the layer is {shown(layer)}; expected the number of a block, from 0")
  return found


def _read_part(file: ArrayFile, tokenizer, several: bool) -> _Part:
  """A file without its activations. Raises NLAError where its arrays do not fit together."""
  n = file.shapes["activations"][0]
  tokens = _tokens(file)
  if not tokens:
    raise NLAError(f"{file.path} has no document in 'tokens'; every row is of one")
  largest = (one.max() for one in tokens)
  refuse_beyond(largest, len(tokenizer), str(file.path))

  # 1. Which token of which document each row is.
  default = np.arange(n) if len(tokens) == n else None
  document = _whole_numbers(file, "document", n, default)
  lengths = np.array([len(one) for one in tokens])
  _refuse_outside(file, "document", document, np.full(n, len(tokens)))
  position = _whole_numbers(file, "position", n, lengths[document] - 1)
  _refuse_outside(file, "position", position, lengths[document])

  # 2. What the documents are called. Two files may both count from 0.
  count = len(tokens)
  ids = _names(file, "ids", count) or [str(i) for i in range(count)]
  groups = _names(file, "groups", count) or ids
  if several:
    ids, groups = ([f"{file.path.stem}:{name}" for name in names] for names in (ids, groups))
  if len(set(ids)) < count:
    twice = Counter(ids).most_common(1)[0][0]
    raise NLAError(f"{file.path} has the document id {shown(twice)} twice; ids must be unique")
  splits = _names(file, "splits", count) or [""] * count
  strange = set(splits) - {*SPLITS, ""}
  if strange:
    raise NLAError(f"{file.path} has the split {shown(min(strange))}; expected {', '.join(SPLITS)}")
  sources = _names(file, "sources", count) or [""] * count
  fields = zip(ids, groups, splits, tokens, sources, strict=True)
  return _Part([StoredDocument(*one) for one in fields], document, position)


def _tokens(file: ArrayFile) -> list[np.ndarray]:
  """The tokens of each document, in any of the two forms."""
  rank = len(file.shapes.get("tokens", ()))
  if rank not in (1, 2) or (rank == 1) != ("offsets" in file):
    raise NLAError(
      f"{file.path} has no documents: expected 'tokens' [T] with 'offsets' [documents + 1], or 'tokens' "
      "[documents, L] with 'lengths' [documents]"
    )
  tokens = _whole_numbers(file, "tokens", file.shapes["tokens"][0])
  if rank == 2:
    full = np.full(len(tokens), tokens.shape[1])
    lengths = _whole_numbers(file, "lengths", len(tokens), full)
    _refuse_outside(file, "lengths", lengths - 1, full)
    found = [line[:length] for line, length in zip(tokens, lengths.tolist(), strict=True)]
  else:
    offsets = _whole_numbers(file, "offsets", file.shapes["offsets"][0]).astype(np.int64)
    if not len(offsets) or offsets[0] or offsets[-1] != len(tokens) or (np.diff(offsets) < 1).any():
      raise NLAError(
        f"{file.path} has 'offsets' that do not rise from 0 to the {len(tokens)} tokens; each document has at least one"
      )
    found = np.split(tokens, offsets[1:-1])
  if len(tokens) and tokens.min() < 0:
    raise NLAError(f"{file.path} has the token id {int(tokens.min())}; ids are at least 0")
  return [one.astype(np.int32) for one in found]


def _whole_numbers(
  file: ArrayFile, name: str, length: int, default: np.ndarray | None = None
) -> np.ndarray:
  """An array of whole numbers [length, …]. Raises NLAError where it is something else, or missing without a default."""
  if name not in file:
    if default is None:
      raise NLAError(
        f"{file.path} has no array {name!r}, and rows and documents are not as many: add it"
      )
    return default.astype(np.int32)
  shape, dtype = file.shapes[name], file.dtypes[name]
  if dtype.kind not in "iu" or shape[:1] != (length,) or (len(shape) > 1 and name != "tokens"):
    raise NLAError(
      f"{file.path} has {name!r} of {dtype} {list(shape)}; expected whole numbers [{length}]"
    )
  found = file.read(name)
  # Ids, rows and offsets of another width would be cut off without a word.
  if found.size and int(found.max()) > np.iinfo(np.int32).max and name != "offsets":
    raise NLAError(f"{file.path} has {int(found.max())} in {name!r}, which is beyond 32 bits")
  return found if name == "offsets" else found.astype(np.int32)


def _refuse_outside(file: ArrayFile, name: str, values: np.ndarray, below: np.ndarray) -> None:
  wrong = np.flatnonzero((values < 0) | (values >= below))
  if len(wrong):
    i = int(wrong[0])
    raise NLAError(
      f"{file.path} has {int(values[i])} as {name!r} of row {i}; expected 0 to {int(below[i]) - 1}"
    )


def _names(file: ArrayFile, name: str, count: int) -> list[str] | None:
  found = file.strings(name)
  if found is not None and len(found) != count:
    raise NLAError(f"{file.path} has {len(found)} {name} and {count} documents: give one of each")
  return found


def _with_splits(
  parts: Sequence[_Part], held_out: float, seed: int
) -> tuple[list[StoredDocument], int]:
  """The documents of all files with their splits, copies in one, and how many are copies."""
  documents = [one for part in parts for one in part.documents]
  named = sum(bool(one.split) for one in documents)
  if 0 < named < len(documents):
    raise NLAError(
      f"{named} of {len(documents)} documents have a split: give 'splits' for all of them, or for none"
    )

  # Splits that are given stay: what lies in two of them is counted, and said, by the caller.
  groups, tokens = [one.group for one in documents], [one.tokens for one in documents]
  joined, copies = join_copies(groups, tokens, splits_needed(held_out))
  if named:
    return documents, copies
  splits = split_groups(joined, seed=seed, held_out=held_out)
  found = [
    dataclasses.replace(one, group=group, split=splits[group])
    for one, group in zip(documents, joined, strict=True)
  ]
  return found, copies


def _activations(files: Sequence[ArrayFile], together: int, start: int) -> Iterator[np.ndarray]:
  """Yields the activations of all files from row `start` on. Raises NLAError where one is not finite."""
  for file in files:
    count = file.shapes["activations"][0]
    if start < count:
      row = start
      for batch in file.batches("activations", together, start):
        vectors = batch.astype(np.float32)
        whole = np.isfinite(vectors).all(1)
        if not whole.all():
          raise NLAError(
            f"{file.path} has an activation that is not finite (row {row + int(whole.argmin())}): leave it out"
          )
        row += len(vectors)
        yield vectors
    start = max(start - count, 0)
