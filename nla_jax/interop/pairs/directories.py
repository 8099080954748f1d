"""Reads AV and AR directories, ours or another tool's, and checks that their parts belong together.

Other tools load an AR with a wrong number of layers without a word, and put random blocks on top. So nothing is read
here, nor written by `write`, before the sidecar, the architecture, the tensors and the live tokenizer agree.
`docs/interchange.md` says what the directories hold.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nla_jax.autoencoder.answers import check_answers
from nla_jax.autoencoder.chat import with_chat_template
from nla_jax.autoencoder.prompts import ar_text
from nla_jax.autoencoder.text import encode
from nla_jax.autoencoder.tokens import check_vocabulary, refuse_beyond
from nla_jax.errors import NLAError
from nla_jax.interop.base_models import huggingface, tensor_files
from nla_jax.interop.base_models.find import is_hub_id
from nla_jax.interop.base_models.record import check_ends
from nla_jax.interop.base_models.tokenizers import emits_bos
from nla_jax.interop.pairs import adapted, sidecar
from nla_jax.interop.pairs.head import read_head
from nla_jax.interop.pairs.injected import INJECTION_FILE, INJECTION_NOTE
from nla_jax.interop.pairs.lora_files import read_adapters
from nla_jax.interop.pairs.sidecar import ModelSidecar
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import Lora
from nla_jax.models.parameters import kept_narrow

# What an AR's config.json may say otherwise without computing anything else: it has no unembedding.
_FREE = ("tied", "max_positions")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """An AV or AR as read from its directory.

  Attributes:
    architecture: of `params`; an AR's has K+1 layers.
    params: tree of `jax.Array`s, laid out for the mesh in context; an AR's has no final norm and no unembedding. Of
      adapters theirs alone, on the host.
    tokenizer: verified against the sidecar.
    ends: ids that end an answer by the checkpoint's own files, besides the tokenizer's EOS.
    sidecar: the content of `nla_meta.yaml`.
    head: [d_model, d_model], prediction = residual @ head; only in an AR.
    injection: {"matrix": [d_model, d_model], "bias": [d_model]}; only in an AV with a learned affine
      injection.
    lora: of `params`, where they are adapters.
  """

  architecture: Architecture
  params: dict[str, Any]
  tokenizer: Any
  ends: tuple[int, ...]
  sidecar: ModelSidecar
  head: np.ndarray | None = None
  injection: dict[str, np.ndarray] | None = None
  lora: Lora | None = None


def read_checkpoint(
  directory: str | Path,
  role: str,
  *,
  dtype: str = "float32",
  base: str | None = None,
  chat_template: str = "",
) -> Checkpoint:
  """Reads an AV's or an AR's directory, ours or another tool's.

  Args:
    directory: as `write_av`, `write_ar` or `write_adapted` leaves it.
    role: `av` or `ar`.
    dtype: of the transformer's parameters, `float32`, `bfloat16` or `auto`, which keeps what is bfloat16 in the files.
    base: name of the base of adapters, in place of the sidecar's.
    chat_template: in place of the tokenizer's, as `config.prompts.chat_template`.

  Raises:
    NLAError: a file is missing, the directory is of the other role, or the sidecar, the files and the tokenizer do not
      agree.
  """
  directory = Path(directory)
  parts = read_parts(directory, role, base, chat_template)
  model_sidecar, architecture, tokenizer, ends = parts

  # The small files come first: where one is missing, no weights have been read.
  head = read_head(directory, architecture.d_model) if role == "ar" else None
  injection = _read_injection(directory, architecture, model_sidecar) if role == "av" else None
  lora = None
  if adapted.is_adapted(directory):
    adapter = read_adapters(directory, architecture)
    lora, params = adapter.lora, adapter.params
  else:
    found = huggingface.read_params(directory, architecture, headless=role == "ar", dtype=dtype)
    params = kept_narrow(found)
  return Checkpoint(
    architecture=architecture,
    params=params,
    tokenizer=tokenizer,
    ends=ends,
    sidecar=model_sidecar,
    head=head,
    injection=injection,
    lora=lora,
  )


def _read_injection(
  directory: Path, architecture: Architecture, model_sidecar: ModelSidecar
) -> dict[str, np.ndarray] | None:
  """An AV's learned injection map; None where it has none. Raises NLAError where it is named and not there."""
  path = directory / INJECTION_FILE
  if path.is_file():
    return tensor_files.read_file(path, injection_shapes(architecture))

  # Without its map such an AV would be injected with other vectors than it was trained on.
  training = model_sidecar.training
  if training.get("injection") == INJECTION_NOTE or training.get("inject_map") == "affine":
    raise NLAError(
      f"{directory} lacks {INJECTION_FILE}, which its sidecar names: copy it from the export"
    )
  return None


def check_pair(
  av: str | Path, ar: str | Path, base: str | None = None, chat_template: str = ""
) -> None:
  """Checks, before any weight is read, that an AV and an AR are of one base model, layer and tokenizer.

  Args:
    av: the AV's directory.
    ar: the AR's directory.
    base: name of the base of adapters, in place of the sidecar's.
    chat_template: in place of the tokenizers', as `config.prompts.chat_template`.

  Raises:
    NLAError: one of them is not good by itself, or the two contradict each other.
  """
  # 1. Each by itself.
  one, av_architecture, av_tokenizer, _ = read_parts(Path(av), "av", base, chat_template)
  other, ar_architecture, ar_tokenizer, _ = read_parts(Path(ar), "ar", base, chat_template)

  # 2. Base model and layer. Only names of hub repositories are compared: some files name the checkpoint that a stage
  # began with instead.
  bases = [
    side.base_checkpoint if is_hub_id(side.base_checkpoint) else None for side in (one, other)
  ]
  pairs = [
    ("base_checkpoint", *bases),
    ("layer", one.layer_index, other.layer_index),
  ]

  # 3. The architecture, of as many blocks as the AR has.
  lower = av_architecture.lower(min(ar_architecture.n_layers, av_architecture.n_layers))
  pairs += [
    (field.name, getattr(lower, field.name), getattr(ar_architecture, field.name))
    for field in dataclasses.fields(Architecture)
    if field.name not in _FREE
  ]

  # 4. What the tokenizers make of the texts: equal files are not needed, equal ids are.
  probe = ar_text(other.ar_template, "x")
  pairs += [
    ("the AV's template", one.av_template, other.av_template),
    ("the AR's template", one.ar_template, other.ar_template),
    (
      "the AR's input for the explanation 'x'",
      encode(av_tokenizer, probe, special=True),
      encode(ar_tokenizer, probe, special=True),
    ),
  ]
  if other.tokens is not None:
    pairs += [
      (field.name, getattr(one.tokens, field.name), getattr(other.tokens, field.name))
      for field in dataclasses.fields(sidecar.Tokens)
    ]

  # None is a half that does not say, which contradicts nothing.
  for name, first, second in pairs:
    if first != second and first is not None and second is not None:
      raise NLAError(
        f"this AV and this AR do not belong together: {name} is {first!r} in the AV and {second!r} in the "
        "AR; give the two halves of one pair"
      )


def read_parts(
  directory: Path, role: str, base: str | None, chat_template: str
) -> tuple[ModelSidecar, Architecture, Any, tuple[int, ...]]:
  """Returns sidecar, architecture, tokenizer and the ids that end an answer, once they belong together.

  Args:
    directory: of an AV or AR.
    role: `av` or `ar`.
    base: name of the base of adapters, in place of the sidecar's.
    chat_template: in place of the tokenizer's, as `config.prompts.chat_template`.

  Raises:
    NLAError: one of them is missing, or they do not belong together.
  """
  model_sidecar = sidecar.read_model_sidecar(directory, role)
  if adapted.is_adapted(directory):
    sidecar.check_role(model_sidecar.role, role)
    found = adapted.base_of(model_sidecar, base)
    architecture, tokenizer = adapted.architecture_of(found, model_sidecar), found.tokenizer
    ends = found.ends
  else:
    architecture = huggingface.architecture_from_config(huggingface.read_config(directory))
    tokenizer, ends = huggingface.read_tokenizer(directory), huggingface.end_ids(directory)
    check_ends(ends, architecture.vocab_size, str(directory))
  tokenizer = with_chat_template(tokenizer, chat_template)

  # What the pair was trained to stop at may be more than its files name.
  ends = tuple(dict.fromkeys((*ends, *(model_sidecar.prompt_ids or {}).get("stop_ids", ()))))
  check_parts(architecture, tokenizer, model_sidecar, role, ends)
  return model_sidecar, architecture, tokenizer, ends


def check_parts(
  architecture: Architecture,
  tokenizer,
  model_sidecar: ModelSidecar,
  role: str,
  ends: Sequence[int] = (),
) -> None:
  """Raises NLAError where architecture, tokenizer and sidecar do not belong together, or not to `role`.

  Args:
    architecture: of the weights.
    tokenizer: a fast tokenizer.
    model_sidecar: with every id that it says.
    role: `av` or `ar`.
    ends: tokens that end an answer by the model's own files.
  """
  sidecar.check_role(model_sidecar.role, role)
  if model_sidecar.d_model != architecture.d_model:
    raise NLAError(
      f"the sidecar says d_model {model_sidecar.d_model}, the model has {architecture.d_model}: "
      "they belong to different checkpoints"
    )

  # Of the output of block K the AR has blocks 0..K; one more would be random where other tools load it.
  if role == "ar" and model_sidecar.layer_index + 1 != architecture.n_layers:
    raise NLAError(
      f"an AR for the output of block {model_sidecar.layer_index} has "
      f"{model_sidecar.layer_index + 1} blocks, this one has {architecture.n_layers}: cut it "
      f"to blocks 0..{model_sidecar.layer_index}"
    )

  # More rows than tokens are usual: embeddings are padded to round numbers.
  check_vocabulary(tokenizer, architecture.vocab_size)
  for name, ids in (model_sidecar.prompt_ids or {}).items():
    refuse_beyond(ids, architecture.vocab_size, f"the prompt ({name})")
  model_sidecar.verify(tokenizer, ends)
  if role == "av":
    check_answers(tokenizer, (*ends, *(model_sidecar.prompt_ids or {}).get("stop_ids", ())))

  # Where the sidecar is a data set's, the AR learned from inputs that were tokenised without special tokens.
  if role == "ar" and model_sidecar.of_data and emits_bos(tokenizer):
    raise NLAError(
      "this AR was trained on inputs without a BOS, as the trainer that copies a data set's sidecar has it, and this "
      "tokenizer puts one before them: such an AR is not read here"
    )


def injection_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
  """The shapes of a learned injection map."""
  return {"matrix": (architecture.d_model, architecture.d_model), "bias": (architecture.d_model,)}
