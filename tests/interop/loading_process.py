"""Run as one of several processes with four CPU devices each: loads its part of a checkpoint, JSON on stdout.

  python tests/interop/loading_process.py DIRECTORY ADDRESS PROCESSES INDEX
"""
import json
import pathlib
import sys

import jax
import numpy as np
from safetensors import safe_open

from nla_jax.errors import NLAError
from nla_jax.interop import huggingface, name_table
from nla_jax.parallel import placement
from nla_jax.parallel.mesh import make_mesh


def main(directory: str, address: str, processes: str, index: str) -> None:
  jax.config.update("jax_num_cpu_devices", 4)
  jax.distributed.initialize(address, int(processes), int(index))
  jax.set_mesh(make_mesh(data=1, fsdp=4 * int(processes), tensor=1))
  folder, taken, copy = pathlib.Path(directory), [], placement._copy

  def counted(array, sharding):
    parts = {str(part): array[part].nbytes for part in sharding.addressable_devices_indices_map(array.shape).values()}
    taken.append(sum(parts.values()))
    return copy(array, sharding)

  placement._copy = counted
  model = huggingface.open_model(folder, huggingface.architecture_from_config(huggingface.read_config(folder)))
  try:
    params = model.read("bfloat16")
  except NLAError as error:
    print(json.dumps({"error": str(error)}))
    return
  equal = True
  for leaf in name_table.block_leaves(model.architecture):
    name = model.name_of(leaf, 1)
    with safe_open(model.files.entry(name).path, "np") as file:
      expected = leaf.from_file(file.get_tensor(name), model.architecture)
    for piece in params["layers"][leaf.ours].addressable_shards:
      equal = equal and np.array_equal(np.asarray(piece.data)[1], expected[piece.index[1:]])
  print(json.dumps({"taken": sum(taken), "equal": bool(equal)}))


if __name__ == "__main__":
  main(*sys.argv[1:])
