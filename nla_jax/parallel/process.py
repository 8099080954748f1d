"""Switches of this process: the environment variables and the settings of libraries that are set for all of it.

Each is a function, so that who sets what, and when, is seen where it is called.
"""

import os
import sys
from pathlib import Path

import jax


def give_cpu_devices_threads() -> None:
  """Asks XLA for eight threads a CPU device, so that collectives cannot block each other. `PJRT_NPROC` wins if set.

  Must be called before jax makes its first array; with a single CPU device it does nothing.
  """
  devices = jax.config.jax_num_cpu_devices
  if devices <= 1:
    return

  # XLA's CPU devices share a pool of as many threads as there are devices (or cores), and a collective keeps its thread
  # until all devices have come to it. A program may have two that do not wait for each other, one of them in a loop:
  # with a thread a device, seven of eight devices stood in an all-reduce and the eighth in an all-gather, for ever.
  os.environ.setdefault("PJRT_NPROC", str(max(8 * devices, os.cpu_count() or 1)))


def quiet_transformers() -> None:
  """Lets transformers print errors only. `TRANSFORMERS_VERBOSITY` wins if set."""
  if "TRANSFORMERS_VERBOSITY" in os.environ:
    return
  os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # for processes that this one starts

  # transformers reads the variable when it is imported, and something else may have done that.
  if "transformers" in sys.modules:
    sys.modules["transformers"].logging.set_verbosity_error()


def keep_compiled_programs(folder: Path, every: bool = False) -> None:
  """Lets jax keep compiled programs in `folder`, so that a run that continues does not compile again.

  `JAX_COMPILATION_CACHE_DIR` and `JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS` win if set: several runs on one machine
  may share a cache.

  Args:
    folder: of the cache.
    every: programs that compile in less than a second too, for a process that lives for seconds.
  """
  folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(folder))
  jax.config.update("jax_compilation_cache_dir", folder)
  if every and "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
