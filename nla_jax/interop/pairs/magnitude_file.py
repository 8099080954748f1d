"""The head that says how large an activation is, in a file beside an AR, which the sidecar's `training` names."""

from pathlib import Path

import numpy as np

from nla_jax.autoencoder.magnitude import Magnitude
from nla_jax.errors import NLAError
from nla_jax.interop.base_models import tensor_files
from nla_jax.interop.base_models.numbers import check_largest, largest_of

MAGNITUDE_FILE = "magnitude.safetensors"
KEY = "magnitude"  # in the sidecar's `training`
NOTE = f"log norm = u @ weight + bias of {MAGNITUDE_FILE}, u the prediction at norm 1"


def write_magnitude(folder: Path, magnitude: Magnitude) -> None:
  """Writes the head into an AR's directory, in float32: {"weight": [d_model], "bias": [1]}."""
  arrays = {"weight": magnitude.weight, "bias": np.array([magnitude.bias], np.float32)}
  tensor_files.write_file(folder / MAGNITUDE_FILE, arrays)


def read_magnitude(folder: Path, training: dict, d_model: int) -> Magnitude | None:
  """The head in an AR's directory; None where its sidecar names none.

  Raises:
    NLAError: the sidecar names it and the file is missing, of another width, or holds what is not finite.
  """
  if KEY not in training:
    return None
  path = folder / MAGNITUDE_FILE
  if not path.is_file():
    raise NLAError(
      f"the sidecar of {folder} names {MAGNITUDE_FILE}, which is not there: fetch it, or take "
      f"training.{KEY} out of the sidecar"
    )
  arrays = tensor_files.read_file(path, {"weight": (d_model,), "bias": (1,)})
  check_largest(largest_of(arrays["weight"]), f"{path}: weight")
  check_largest(largest_of(arrays["bias"]), f"{path}: bias")
  return Magnitude(arrays["weight"], float(arrays["bias"][0]))
