"""`nla push DIR REPO`: an exported AV or AR to the hub, its sidecar last.

Weights are uploaded first, then everything else, then `nla_meta.yaml`, each in a commit of its own; a sidecar from an
earlier push is taken away before the first. A repository that has one is therefore whole, and a push that was cut off
leaves one that every reader refuses by name. Run again, it goes on: the hub keeps the files that it has.
"""

from pathlib import Path

from nla_jax.errors import NLAError
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
    repository: owner/name; made where it is missing.
    api: a `huggingface_hub.HfApi`; one with the user's own login where None.
    private: a repository that is made is private.

  Returns:
    The repositories' names.

  Raises:
    NLAError: the directory lacks something (nothing is uploaded then), or the hub refuses.
  """
  folder = Path(directory)
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
  for one, _ in pairs:
    missing = describe_model(one).missing
    if missing:
      raise NLAError(
        f"{one} is not uploaded: {missing[0]}"
        + (f" ({len(missing) - 1} more; `nla inspect` shows them)" if missing[1:] else "")
      )
  if api is None:
    import huggingface_hub

    api = huggingface_hub.HfApi(library_name="nla_jax")
  for one, name in pairs:
    _push_one(one, name, api, private)
  return [name for _, name in pairs]


def _push_one(folder: Path, repository: str, api, private: bool) -> None:
  from huggingface_hub.errors import HfHubHTTPError, HFValidationError

  role = sidecar.read_model_sidecar(folder).role.upper()
  try:
    api.create_repo(repository, private=private, exist_ok=True)
    if api.file_exists(repository, sidecar.MODEL_FILE):
      api.delete_file(
        sidecar.MODEL_FILE, repository, commit_message=f"{role}: replaced, the sidecar returns last"
      )
    # A shard or an index that an earlier push left and this one lacks would be read as a part of it.
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
    api.upload_file(
      path_or_fileobj=str(folder / sidecar.MODEL_FILE),
      path_in_repo=sidecar.MODEL_FILE,
      repo_id=repository,
      commit_message=f"{role}: sidecar, the checkpoint is whole",
    )
  except (HfHubHTTPError, HFValidationError, OSError) as error:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise NLAError(
      f"{folder} was not wholly uploaded to {repository} ({reason}): log in with `hf auth login`, check "
      "the name and the network, and run the same command again"
    ) from error
  say(f"push: {repository} is whole")
