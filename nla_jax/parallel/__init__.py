"""Who holds which part of an array, and how several devices and processes act as one."""

import os

import jax

# XLA's CPU devices share a pool of as many threads as there are devices (or cores), and a collective keeps its thread
# until all devices have come to it. A program may have two that do not wait for each other, one of them in a loop: with
# a thread a device, seven of eight devices stood in an all-reduce and the eighth in an all-gather, for ever.
if jax.config.jax_num_cpu_devices > 1:
  os.environ.setdefault(
    "PJRT_NPROC", str(max(8 * jax.config.jax_num_cpu_devices, os.cpu_count() or 1))
  )
