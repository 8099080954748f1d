"""Importing nla_jax is enough for several CPU devices not to block each other; who knows better is not overruled."""

import os
import subprocess
import sys

import pytest

PROGRAM = "import os, nla_jax; print(os.environ.get('PJRT_NPROC'))"


@pytest.mark.parametrize(
  ("variables", "expected"),
  [
    ({"JAX_NUM_CPU_DEVICES": "8"}, lambda n: int(n) >= 64),
    ({"JAX_NUM_CPU_DEVICES": "8", "PJRT_NPROC": "9"}, lambda n: n == "9"),
    ({}, lambda n: n == "None"),
  ],
)
def test_importing_the_package_gives_cpu_devices_their_threads(variables, expected):
  environment = {
    k: v for k, v in os.environ.items() if k not in ("PJRT_NPROC", "JAX_NUM_CPU_DEVICES")
  }
  done = subprocess.run(
    [sys.executable, "-P", "-c", PROGRAM],
    env={**environment, **variables},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert expected(done.stdout.strip())
