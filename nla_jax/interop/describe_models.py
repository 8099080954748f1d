"""Describes a Hugging Face directory, an AV, an AR or a GGUF file without reading its weights."""

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nla_jax.autoencoder.chat import with_chat_template
from nla_jax.errors import NLAError
from nla_jax.interop.adapters.read import read_adapter
from nla_jax.interop.base_models import gguf, huggingface, parameter_names, tensor_files
from nla_jax.interop.base_models.gguf_tokenizer import end_ids, tokenizer_from_header
from nla_jax.interop.base_models.tokenizers import emits_bos
from nla_jax.interop.describe_prompts import contradictions, describe_prompts
from nla_jax.interop.pairs import adapted, directories, sidecar
from nla_jax.models.architectures import Architecture


@dataclasses.dataclass
class Description:
  """What lies at a path.

  Attributes:
    path: as given.
    kind: what it is, in words.
    facts: {name: value}, in the order of printing.
    missing: a line for each thing that is absent or wrong; empty where all is well.
    parts: the things in a folder that holds several.
  """

  path: str
  kind: str
  facts: dict[str, object] = dataclasses.field(default_factory=dict)
  missing: list[str] = dataclasses.field(default_factory=list)
  parts: list["Description"] = dataclasses.field(default_factory=list)

  @contextlib.contextmanager
  def noting(self) -> Iterator[None]:
    """Turns an NLAError into a line of `missing`; what follows the block is done all the same."""
    try:
      yield
    except NLAError as error:
      self.missing.append(str(error))


def describe_model(path: Path, chat_template: str = "") -> Description:
  """Describes a Hugging Face directory: a plain model, or an AV or AR where it has a sidecar.

  Args:
    path: the directory.
    chat_template: in place of the tokenizer's, as `config.prompts.chat_template`.

  Returns:
    All that could be read; an error in one part does not hide the others.
  """
  found = Description(str(path), "a Hugging Face model (no NLA: it has no nla_meta.yaml)")
  side = architecture = tokenizer = None
  ends = ()

  # 1. Each part by itself.
  if (path / sidecar.MODEL_FILE).is_file():
    found.kind = "an AV or AR whose sidecar cannot be used"
    with found.noting():
      side = sidecar.read_model_sidecar(path)
      found.kind = {
        "av": "an activation verbalizer (AV)",
        "ar": "an activation reconstructor (AR)",
      }[side.role]
      found.facts |= _of_sidecar(side)
  if side is not None and adapted.is_adapted(path):
    return _describe_adapted(path, side, found)
  with found.noting():
    architecture = huggingface.architecture_from_config(huggingface.read_config(path))
    found.facts |= _of_architecture(architecture)
  with found.noting():
    tokenizer = with_chat_template(huggingface.read_tokenizer(path), chat_template)
    ends = huggingface.end_ids(path)
    found.facts |= _of_tokenizer(tokenizer)
  with found.noting():
    found.facts |= _of_tensors(
      path, architecture, found, headless=side is not None and side.role == "ar"
    )
  if side is None:
    _note_prompts(found, tokenizer, architecture, ends)
    return found

  # 2. Whether they belong together.
  found.missing += contradictions(side, tokenizer, architecture, ends)

  # 3. What only one of the two halves has.
  if side.role == "ar":
    _check_ar(path, side, architecture, found)
  elif (path / directories.INJECTION_FILE).is_file():
    found.facts["injection map"] = f"affine, in {directories.INJECTION_FILE}"
  elif "injection" in side.training:
    found.missing.append(
      f"{directories.INJECTION_FILE}, the learned injection map that the sidecar names: copy it from the "
      "export"
    )
  return found


def _describe_adapted(path: Path, side: sidecar.ModelSidecar, found: Description) -> Description:
  """Adds what an AV or AR of adapters has: they are read, and checked against their base where it is here."""
  found.kind += " as adapters on its base model"
  with found.noting():
    base = adapted.base_of(side)
    architecture = adapted.architecture_of(base, side)
    found.facts |= _of_architecture(architecture)
    side.verify(base.tokenizer)

    adapter = read_adapter(path, architecture)
    lora = adapter.lora
    found.facts["adapters"] = (
      f"rank {lora.rank}, alpha {lora.alpha:g}, on {', '.join(lora.targets)}"
    )
    sizes = (leaf.size for leaf in adapter.params["layers"].values())
    found.facts["parameters of the adapters"] = _count(sum(sizes))
  if side.role == "ar":
    _check_ar(path, side, None, found)
  return found


def _check_ar(
  path: Path, side: sidecar.ModelSidecar, architecture: Architecture | None, found: Description
) -> None:
  """Adds what an AR has beyond a plain model: as many blocks as its layer asks for, and the value head."""
  # Other tools load a wrong number of blocks without a word.
  if architecture is not None and architecture.n_layers != side.layer_index + 1:
    found.missing.append(
      f"an AR for the output of block {side.layer_index} has {side.layer_index + 1} blocks, this "
      f"one has {architecture.n_layers}: cut it to blocks 0..{side.layer_index}"
    )

  head = path / directories.HEAD_FILE
  if not head.is_file():
    found.missing.append(
      f"{directories.HEAD_FILE}, the value head: fetch it, nothing can be reconstructed without it"
    )
    return

  with found.noting():
    shapes = {name: entry.shape for name, entry in tensor_files.read_header(head).items()}
    if shapes != {"weight": (side.d_model, side.d_model)}:
      raise NLAError(f"{head} holds {shapes}, expected weight of ({side.d_model}, {side.d_model})")
    found.facts["value head"] = f"{side.d_model} × {side.d_model}"


def describe_gguf(path: Path, chat_template: str = "") -> Description:
  """Describes a GGUF file from its header; see `describe_model`."""
  found, architecture = Description(str(path), "a GGUF file"), None
  with found.noting():
    # 1. What the header says of the file.
    reader = gguf.open_reader(path)
    header = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    found.facts["name"] = header.get("general.name")
    found.facts["family"] = header.get("general.architecture")
    kinds = Counter(tensor.tensor_type.name for tensor in tensors.values())
    found.facts["stored as"] = ", ".join(f"{n} tensors {kind}" for kind, n in kinds.most_common())
    found.facts["parameters"] = _count(
      sum(int(np.prod(tensor.shape)) for tensor in tensors.values())
    )
    found.facts["size"] = size_in_words(path.stat().st_size)
    found.facts["licence"] = header.get("general.license")

    # 2. What it says of the model, and whether the model's tensors are there.
    with found.noting():
      architecture = gguf.architecture_from_header(header, tensors, path)
      found.facts |= _of_architecture(architecture)
      leaves = parameter_names.all_leaves(architecture, headless=False)
      wanted = [leaf.gguf.format(layer=layer) for leaf, layer in leaves]
      _note_absent(found, [name for name in wanted if name not in tensors])

    # 3. The tokenizer: a model of a family that is not known may still have one that is.
    with found.noting():
      tokenizer = with_chat_template(tokenizer_from_header(header), chat_template)
      found.facts |= _of_tokenizer(tokenizer)
      _note_prompts(found, tokenizer, architecture, end_ids(header))
  return found


def _of_sidecar(side: sidecar.ModelSidecar) -> dict[str, object]:
  """Facts that a sidecar gives."""
  k = side.layer_index
  facts = {
    "base model": side.base_checkpoint,
    "stage": side.stage,
    # Spelt out, because others count layers from 1 or mean a block's input.
    "layer": None if k is None else f"{k} (output of this block, 0-based)",
    "injection scale α": side.injection_scale,
    "mse scale": side.mse_scale,
  }
  if side.tokens is not None:
    t = side.tokens
    facts["marker"] = (
      f"{t.injection_char} id {t.injection_token_id} between {t.left_id} and {t.right_id}"
    )
    facts["AR suffix ids"] = None if t.suffix_ids is None else list(t.suffix_ids)

  facts |= {
    "AV template": side.av_template,
    "AR template": side.ar_template,
    "trained on": ", ".join(side.trained_on),
    "made": " by ".join(filter(None, (side.created_at, side.created_by))),
  }
  return facts | {f"training.{name}": value for name, value in side.training.items()}


def _of_architecture(architecture: Architecture) -> dict[str, object]:
  """Facts that an architecture gives."""
  a = architecture
  scaling = f", {a.rope_scaling.kind} × {a.rope_scaling.factor:g}" if a.rope_scaling else ""
  facts = {
    "family": a.family,
    "blocks": f"{a.n_layers} (0..{a.n_layers - 1})",
    "d_model": a.d_model,
    "heads": f"{a.n_heads} of width {a.head_dim}, {a.n_kv_heads} for keys and values",
    "d_ff": a.d_ff,
    "vocabulary": a.vocab_size,
    "positions": a.max_positions,
    "tied embeddings": a.tied,
    "rope": f"theta {a.rope_theta:g}{scaling}",
  }

  if a.windows:
    local = sum(window > 0 for window in a.windows)
    facts["attention"] = (
      f"{local} blocks in a window of {max(a.windows)}, {a.n_layers - local} over everything"
    )
  return facts


def _of_tokenizer(tokenizer) -> dict[str, object]:
  """Facts that a tokenizer gives."""
  facts = {
    "tokenizer": f"{len(tokenizer)} tokens, pads on the {tokenizer.padding_side}, "
    + ("begins with " + tokenizer.bos_token if emits_bos(tokenizer) else "no BOS")
  }
  facts["chat template"] = tokenizer.chat_template is not None
  return facts


def _note_prompts(
  found: Description, tokenizer, architecture: Architecture | None, ends: Sequence[int]
) -> None:
  """Adds what a base model's tokenizer makes of the prompts, and what a run on it would refuse."""
  if tokenizer is not None:
    facts, missing = describe_prompts(tokenizer, architecture, ends)
    found.facts |= facts
    found.missing += missing


def _of_tensors(
  path: Path, architecture: Architecture | None, found: Description, *, headless: bool
) -> dict[str, object]:
  """Facts from the headers of the safetensors; notes in `found` what contradicts the architecture."""
  # 1. What is there.
  files = tensor_files.weight_files(path)
  headers = {
    name: (entry.shape, entry.dtype)
    for file in files
    for name, entry in tensor_files.read_header(file).items()
  }
  kinds = Counter(dtype for _, dtype in headers.values())
  size = size_in_words(sum(file.stat().st_size for file in files))
  facts = {
    "weights": f"{len(headers)} tensors in {len(files)} file(s), {size}",
    "stored as": ", ".join(f"{n} tensors {kind}" for kind, n in kinds.most_common()),
    "parameters": _count(sum(int(np.prod(shape)) for shape, _ in headers.values())),
  }
  if architecture is None:
    return facts

  # 2. What must be there, under the names that these files have for it.
  there = huggingface.names_in(headers, path)
  leaves = parameter_names.all_leaves(architecture, headless=headless)
  wanted = [(leaf.hf.format(layer=layer), leaf) for leaf, layer in leaves]
  _note_absent(found, [name for name, _ in wanted if there(name) not in headers])

  # 3. Shapes. One wrong shape is enough: where config.json is another model's, nearly all are wrong.
  for name, leaf in wanted:
    shape = headers.get(there(name), (None, None))[0]
    if shape is not None and shape != leaf.file_shape(architecture):
      found.missing.append(
        f"{name} has shape {list(shape)}, config.json asks for "
        f"{list(leaf.file_shape(architecture))}: the files belong to different models"
      )
      break

  # 4. Blocks that config.json does not count, which other tools pass over without a word.
  next_block = there(f"model.layers.{architecture.n_layers}.")
  above = [name for name in headers if name.startswith(next_block)]
  if above:
    found.missing.append(
      f"config.json says {architecture.n_layers} blocks, the files hold more ({above[0]}): set "
      "num_hidden_layers to the files' number"
    )
  return facts


def _note_absent(found: Description, names: list[str]) -> None:
  """Notes that tensors are missing, in one line."""
  if names:
    found.missing.append(
      f"{len(names)} tensor(s), the first is {names[0]}: the files are incomplete, fetch them again"
    )


def _count(n: int) -> str:
  return f"{n:,}"


def size_in_words(n: int) -> str:
  """Formats a number of bytes such as 1.23 GB."""
  power = min(len(str(n)) - 1, 12) // 3
  return f"{n / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def is_model(path: Path) -> bool:
  """Whether a folder's config.json is a language model's, not a run's."""
  # Not by `huggingface.read_config`: a file that is missing or damaged is no error here.
  try:
    config = json.loads((path / "config.json").read_text())
  except (OSError, ValueError):
    return False
  return isinstance(config, dict) and "model_type" in config
