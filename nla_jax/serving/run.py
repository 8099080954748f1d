"""The server as a process: its address, its secret, and its end."""

import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from nla_jax.errors import NLAError
from nla_jax.files import here

SECRET = "NLA_SECRET"  # the environment variable
_BACKLOG = 256  # connections that wait to be taken
_CONNECTIONS = 1024  # open at once; beyond them uvicorn answers 503
_SHORTEST_SECRET = 8


def secret_of(file: str | None) -> str | None:
  """The secret in a file, or in the environment variable `SECRET`; None where there is neither.

  Raises:
    NLAError: the file cannot be read, or what it holds is no secret for a header.
  """
  where, found = SECRET, os.environ.get(SECRET)
  if file is not None:
    where = file
    try:
      found = Path(here(file)).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
      reason = getattr(error, "strerror", None) or "it is not ASCII text"
      raise NLAError(
        f"--secret-file={file} cannot be read ({reason}): expected a file with one line"
      ) from error
  if found is None:
    return None
  if len(found) < _SHORTEST_SECRET or not found.isascii() or not found.isprintable():
    raise NLAError(
      f"the secret in {where} has {len(found)} characters: expected {_SHORTEST_SECRET} or more of ASCII in one line, "
      "such as `openssl rand -hex 16` writes"
    )
  return found


def listen(host: str, port: int, secret: str | None) -> socket.socket:
  """The socket of the server, taken before anything is loaded.

  Raises:
    NLAError: the address is another one than this machine's own and there is no secret, or it cannot be taken.
  """
  if not 0 <= port < 2**16:
    raise NLAError(f"--port={port}: expected 0 (a free one) to 65535")
  if secret is None and not _is_loopback(host):
    raise NLAError(
      f"--host={host} lets other machines in: give a secret with --secret-file=FILE or {SECRET}, or leave --host out"
    )

  family = socket.AF_INET6 if ":" in host else socket.AF_INET
  found = socket.socket(family, socket.SOCK_STREAM)
  try:
    # A server that has just ended leaves its port waiting; one that still listens keeps it all the same.
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind((host, port))
    # Listening now, not after the weights are loaded: a second server would else find the port free.
    found.listen(_BACKLOG)
  except OSError as error:
    found.close()
    reason = error.strerror or str(error)
    raise NLAError(
      f"{host}:{port} cannot be taken ({reason}): end the other server, or give another --port"
    ) from error
  return found


def _is_loopback(host: str) -> bool:
  if host == "localhost":
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


def address(found: socket.socket) -> str:
  """What to type into a browser."""
  host, port = found.getsockname()[:2]
  return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def run(app: ASGIApp, taken: socket.socket, seconds: float, on_start: Callable[[], None]) -> None:
  """Serves until SIGTERM or SIGINT, then finishes what runs.

  Args:
    app: the application.
    taken: from `listen`.
    seconds: that what runs may still take.
    on_start: called when requests are answered.
  """
  config = uvicorn.Config(
    app,
    log_level="warning",
    access_log=False,
    lifespan="off",
    backlog=_BACKLOG,
    limit_concurrency=_CONNECTIONS,
    timeout_graceful_shutdown=int(seconds),
    server_header=False,
  )
  # uvicorn raises the signal again when it is done, for whoever had it before; nothing is left to do then.
  for one in (signal.SIGTERM, signal.SIGINT):
    signal.signal(one, lambda *_: None)
  on_start()
  uvicorn.Server(config).run([taken])
