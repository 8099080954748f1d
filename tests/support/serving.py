"""A server of a test on a port of its own, and clients of it.

Importing this skips the module of tests that does, by name, where the extra `serve` or the test client is missing.
"""

import contextlib
import http.client
import json
import threading
import time

import pytest

for part in ("starlette", "uvicorn", "httpx2"):
  pytest.importorskip(part, reason=f"serving needs {part}: pip install 'nla_jax[serve,test]'")

import uvicorn
from starlette.testclient import TestClient as TestClient

from nla_jax.serving import run
from nla_jax.serving.server import application


@contextlib.contextmanager
def served(service, **options):
  """The port of a server that runs in a thread."""
  taken = run.listen("127.0.0.1", 0, service.secret)
  config = uvicorn.Config(
    application(service, **options), log_level="warning", lifespan="off", access_log=False
  )
  server = uvicorn.Server(config)
  thread = threading.Thread(target=server.run, args=([taken],), daemon=True)
  thread.start()
  try:
    yield taken.getsockname()[1]
  finally:
    server.should_exit = True
    thread.join(20)
    taken.close()
  assert not thread.is_alive(), "the server did not end"


def posted(port: int, path: str, body, headers=()) -> http.client.HTTPResponse:
  """The response to a POST, with its body still to be read; `close` of its `connection` hangs up."""
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
  content = body if isinstance(body, bytes) else json.dumps(body).encode()
  connection.request("POST", path, content, {"Content-Type": "application/json", **dict(headers)})
  response = connection.getresponse()
  response.connection = connection
  return response


def until(condition, seconds: float = 10.0) -> None:
  """Waits for a condition, and fails where it does not come about."""
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, "it did not come about"
    time.sleep(0.005)


def frames(text: str) -> list:
  """The data of every frame of a stream: objects, and "[DONE]"."""
  *whole, rest = text.split("\n\n")
  assert rest == "", f"the stream ends within a frame: {rest!r}"
  found = []
  for one in whole:
    assert one.startswith("data: ") and "\n" not in one, one
    data = one.removeprefix("data: ")
    found.append(data if data == "[DONE]" else json.loads(data))
  return found
