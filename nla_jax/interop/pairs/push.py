"""`nla push DIR REPO` uploads an exported AV or AR to the hub, its sidecar last.

Weights are uploaded first, then everything else, then `nla_meta.yaml`, each in a commit of its own. The sidecar of an
earlier push is deleted before the first. So a repository that has a sidecar is whole, and every reader refuses one that
a push left half done. The same command resumes such a push: the hub keeps the files that it has.
"""

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from nla_jax.errors import NLAError, first_line
from nla_jax.files import here
from nla_jax.interop.base_models import tensor_files
from nla_jax.interop.describe_models import describe_model
from nla_jax.interop.pairs import sidecar
from nla_jax.progress import say

_WEIGHTS = ["*.safetensors"]
_REST = ["*.json", "*.jinja", "*.model", "*.txt", "README.md", "LICENSE*", "LICENCE*", "NOTICE*"]


def push(directory: str | Path, repository: str, *, api=None, private: bool = False) -> list[str]:
  """Uploads one directory, or a folder's av/ and ar/ to `{repository}-av` and `{repository}-ar`.

  Args:
    directory: an exported AV or AR, or the folder that holds both.
    repository: owner/name; it is created where it is missing.
    api: a `huggingface_hub.HfApi`; None for one with the user's own login.
    private: a repository that is created is private.

  Returns:
    The repositories' names.

  Raises:
    NLAError: the directory lacks something (nothing is uploaded then), or the hub refuses.
  """
  # 1. What goes where.
  folder = Path(here(directory))
  if (folder / sidecar.MODEL_FILE).is_file():
    pairs = [(folder, repository)]
  else:
    pairs = [
      (folder / role, f"{repository}-{role}")
      for role in ("av", "ar")
      if (folder / role / sidecar.MODEL_FILE).is_file()
    ]
  if not pairs:
    raise NLAError(
      f"{directory} is no AV or AR (it has no {sidecar.MODEL_FILE}) and holds no av/ or ar/ that is one; "
      "make them with `nla export`"
    )
  if repository.count("/") != 1 or not all(repository.split("/")):
    raise NLAError(f"{repository!r} is no repository; expected owner/name")

  # 2. Every directory is checked before the first byte of any is sent.
  for one, _ in pairs:
    missing = describe_model(one).missing
    if missing:
      raise NLAError(
        f"{one} is not uploaded: {missing[0]}"
        + (f" ({len(missing) - 1} more; `nla inspect` shows them)" if missing[1:] else "")
      )

  # 3. One repository after another.
  if api is None:
    api = huggingface_hub.HfApi(library_name="nla_jax")
  for one, name in pairs:
    _push_one(one, name, api, private)
  return [name for _, name in pairs]


def _push_one(folder: Path, repository: str, api, private: bool) -> None:
  """Uploads one directory; the order of the commits is what makes a cut-off push harmless."""
  role = sidecar.read_model_sidecar(folder).role.upper()
  try:
    # 1. No sidecar while the repository is half old, half new.
    api.create_repo(repository, private=private, exist_ok=True)
    if api.file_exists(repository, sidecar.MODEL_FILE):
      api.delete_file(
        sidecar.MODEL_FILE, repository, commit_message=f"{role}: replaced, the sidecar returns last"
      )

    # 2. The files. A shard or an index that an earlier push left and this one lacks would be read as a part of it.
    for patterns, stale, what in (
      (_WEIGHTS, _WEIGHTS, "weights"),
      (_REST, [tensor_files.INDEX], "configuration, tokenizer and card"),
    ):
      say(f"push: {what} of {folder} to {repository}")
      api.upload_folder(
        repo_id=repository,
        folder_path=str(folder),
        allow_patterns=patterns,
        delete_patterns=stale,
        commit_message=f"{role}: {what}",
      )

    # 3. The sidecar says that all the rest is there.
    api.upload_file(
      path_or_fileobj=str(folder / sidecar.MODEL_FILE),
      path_in_repo=sidecar.MODEL_FILE,
      repo_id=repository,
      commit_message=f"{role}: sidecar, the checkpoint is whole",
    )
  except (HfHubHTTPError, HFValidationError, OSError) as error:
    reason = first_line(error)
    raise NLAError(
      f"{folder} was not wholly uploaded to {repository} ({reason}): log in with `hf auth login`, check "
      "the name and the network, and run the same command again"
    ) from error

  say(f"push: {repository} is whole")
