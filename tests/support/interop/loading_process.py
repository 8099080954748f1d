"""Run as one of several processes with four CPU devices each: loads its part of checkpoints, a line of JSON for each.

python tests/support/interop/loading_process.py ADDRESS PROCESSES INDEX DIRECTORY…
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from safetensors import safe_open

from nla_jax.errors import NLAError
from nla_jax.interop.base_models import huggingface, parameter_names
from nla_jax.parallel import placement
from nla_jax.parallel.mesh import make_mesh


def main(address: str, processes: str, index: str, *directories: str) -> None:
  jax.config.update("jax_num_cpu_devices", 4)
  jax.distributed.initialize(address, int(processes), int(index))
  jax.set_mesh(make_mesh(data=1, fsdp=4 * int(processes), tensor=1))
  copy = placement._copy
  for directory in directories:
    taken = []

    def counted(array, sharding, taken=taken):
      parts = {
        str(part): array[part].nbytes
        for part in sharding.addressable_devices_indices_map(array.shape).values()
      }
      taken.append(sum(parts.values()))
      return copy(array, sharding)

    placement._copy = counted
    try:
      equal = load(Path(directory))
      print(json.dumps({"taken": sum(taken), "equal": equal}))
    except NLAError as error:
      print(json.dumps({"error": str(error)}))


def load(folder: Path) -> bool:
  """Loads what belongs here; whether block 1 of every leaf is what the files hold."""
  model = huggingface.open_model(
    folder, huggingface.architecture_from_config(huggingface.read_config(folder))
  )
  params = model.read("bfloat16")
  equal = True
  for leaf in parameter_names.block_leaves(model.architecture):
    name = model.name_of(leaf, 1)
    with safe_open(model.files.entry(name).path, "np") as file:
      expected = leaf.from_file(file.get_tensor(name), model.architecture)
    for piece in params["layers"][leaf.ours].addressable_shards:
      equal = equal and np.array_equal(np.asarray(piece.data)[1], expected[piece.index[1:]])
  return bool(equal)


if __name__ == "__main__":
  main(*sys.argv[1:])
