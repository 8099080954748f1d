"""Pairs by name, and computing off Inspect's event loop, one call at a time."""

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import anyio

from nla_jax.autoencoder.nla import NLA
from nla_jax.errors import NLAError
from nla_jax.loading import load

Found = TypeVar("Found")
# Samples and transcripts run at once, and the device computes one thing faster than two halves.
_DEVICE = threading.Lock()


async def computed(call: Callable[..., Found], *args: Any, **options: Any) -> Found:
  """What a call returns, computed in a thread while no other one computes; the event loop goes on meanwhile."""

  def alone() -> Found:
    with _DEVICE:
      return call(*args, **options)

  # A limiter of its own: who waits for the device takes none of the threads that Inspect reads files with.
  return await anyio.to_thread.run_sync(alone, limiter=anyio.CapacityLimiter(1))


def pair_of(nla: NLA | str) -> NLA:
  """A loaded pair: the one that is given, or the one of a name, which is loaded once.

  Args:
    nla: as `nla_jax.load` returns it or takes it.

  Raises:
    NLAError: there is none.
  """
  expect_pair(nla)
  return _loaded(nla) if isinstance(nla, str) else nla


def expect_pair(nla: NLA | str) -> None:
  """Raises NLAError where no pair is named, before anything is loaded."""
  if isinstance(nla, str) and not nla:
    raise NLAError("nla='': name a pair: package:NAME, a workdir, or a folder with av/ and ar/")


@functools.cache
def _loaded(name: str) -> NLA:
  return load(name)
