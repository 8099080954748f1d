"""Describes a Hugging Face directory, an AV or an AR without reading its weights, but an AR's head."""

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nla_jax.autoencoder.chat import with_chat_template
from nla_jax.errors import NLAError
from nla_jax.interop.base_models import huggingface, parameter_names, strays, tensor_files
from nla_jax.interop.base_models.tokenizers import emits_bos
from nla_jax.interop.describe_prompts import contradictions, describe_prompts
from nla_jax.interop.pairs import adapted, head, sidecar
from nla_jax.interop.pairs.injected import INJECTION_FILE
from nla_jax.interop.pairs.lora_files import read_adapters
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
  architecture = tokenizer = None
  ends = ()

  # 1. Each part by itself.
  side = _noted_sidecar(path, found)
  adapters = bool(strays.adapter_files(path)) and not strays.has_whole_weights(path)
  if side is not None and adapters:
    return _describe_adapted(path, side, found)
  if adapters and side is None and not found.missing:
    found.kind = "a LoRA adapter (PEFT)"
    with found.noting():
      strays.refuse_adapter(path)
    return found
  with found.noting():
    strays.refuse_adapter(path)
  with found.noting():
    architecture = huggingface.architecture_from_config(huggingface.read_config(path))
    found.facts |= of_architecture(architecture)
  with found.noting():
    tokenizer = with_chat_template(huggingface.read_tokenizer(path), chat_template)
    ends = huggingface.end_ids(path)
    found.facts |= of_tokenizer(tokenizer)
  with found.noting():
    found.facts |= _of_tensors(
      path, architecture, found, headless=side is not None and side.role == "ar"
    )
  if side is None:
    note_prompts(found, tokenizer, architecture, ends)
    return found

  # 2. Whether they belong together.
  found.missing += contradictions(side, tokenizer, architecture, ends)

  # 3. What only one of the two halves has.
  if side.role == "ar":
    _check_ar(path, side, architecture, found)
  elif (path / INJECTION_FILE).is_file():
    found.facts["injection map"] = f"affine, in {INJECTION_FILE}"
  elif "injection" in side.training:
    found.missing.append(
      f"{INJECTION_FILE}, the learned injection map that the sidecar names: copy it from the export"
    )
  return found


def _noted_sidecar(path: Path, found: Description) -> sidecar.ModelSidecar | None:
  """The directory's sidecar, whose facts are noted in `found`; None where there is none that can be used."""
  if not (path / sidecar.MODEL_FILE).is_file():
    return None
  found.kind, side = "an AV or AR whose sidecar cannot be used", None
  with found.noting():
    side = sidecar.read_model_sidecar(path)
    kinds = {"av": "an activation verbalizer (AV)", "ar": "an activation reconstructor (AR)"}
    found.kind = kinds[side.role]
    found.facts |= _of_sidecar(side)
  return side


def _describe_adapted(path: Path, side: sidecar.ModelSidecar, found: Description) -> Description:
  """Adds what an AV or AR of adapters has: they are read, and checked against their base where it is here."""
  found.kind += " as adapters on its base model"
  with found.noting():
    base = adapted.base_of(side)
    architecture = adapted.architecture_of(base, side)
    found.facts |= of_architecture(architecture)
    side.verify(base.tokenizer)

    adapter = read_adapters(path, architecture)
    lora = adapter.lora
    found.facts["adapters"] = (
      f"rank {lora.rank}, alpha {lora.alpha:g}, on {', '.join(lora.targets)}"
    )
    sizes = (leaf.size for leaf in adapter.params["layers"].values())
    found.facts["parameters of the adapters"] = count(sum(sizes))
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

  file = path / adapted.HEAD_FILE
  if not file.is_file() and not file.with_name(strays.AR_FILE).is_file():
    found.missing.append(
      f"{adapted.HEAD_FILE}, the value head: fetch it, nothing can be reconstructed without it"
    )
    with found.noting():
      head.check_other_heads(path, None)
    return

  with found.noting():
    # The one matrix that is read here: it is small, and no header says whether it can rebuild anything.
    weight = head.read_weight(file, side.d_model)
    norms = head.row_norms(weight)
    found.facts["value head"] = f"{side.d_model} × {side.d_model}, row norms {norms}"
    found.missing += filter(None, [norms.complaint])
    head.check_other_heads(path, weight)


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


def of_architecture(architecture: Architecture) -> dict[str, object]:
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


def of_tokenizer(tokenizer) -> dict[str, object]:
  """Facts that a tokenizer gives."""
  facts = {
    "tokenizer": f"{len(tokenizer)} tokens, pads on the {tokenizer.padding_side}, "
    + ("begins with " + tokenizer.bos_token if emits_bos(tokenizer) else "no BOS")
  }
  facts["chat template"] = tokenizer.chat_template is not None
  return facts


def note_prompts(
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
    "parameters": count(sum(int(np.prod(shape)) for shape, _ in headers.values())),
  }
  if architecture is None:
    return facts

  # 2. What must be there, under the names that these files have for it.
  there = huggingface.names_in(headers, path)
  leaves = parameter_names.all_leaves(architecture, headless=headless)
  wanted = [(leaf.hf.format(layer=layer), leaf) for leaf, layer in leaves]
  note_absent(found, [name for name, _ in wanted if there(name) not in headers])

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

  # 5. What no table names.
  with found.noting():
    facts["not read"] = _passed_over(path, architecture, is_ar=headless)
  return facts


def _passed_over(path: Path, architecture: Architecture, *, is_ar: bool) -> str | None:
  """What lies in the files and is not read; None for nothing. Raises NLAError where it would change the result."""
  strays.check_one_form(path)
  files = tensor_files.TensorFiles(path)
  root = huggingface.root_of(files.names, path)
  names = strays.passed_over(files.names, root, architecture, path, is_ar=is_ar)
  if not is_ar:
    strays.check_tied(files, architecture, root, whole=False)
  return f"{len(names)} tensor(s), the first is {names[0]}" if names else None


def note_absent(found: Description, names: list[str]) -> None:
  """Notes that tensors are missing, in one line."""
  if names:
    found.missing.append(
      f"{len(names)} tensor(s), the first is {names[0]}: the files are incomplete, fetch them again"
    )


def count(n: int) -> str:
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
