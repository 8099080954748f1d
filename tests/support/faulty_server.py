"""A server in front of a server of buckets that does to its requests what networks and clouds do."""

import contextlib
import http.client
import http.server
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

# What the clouds answer where a token has run out: Amazon in XML, Google in JSON.
_EXPIRED = {
  "s3": (
    400,
    b"<Error><Code>ExpiredToken</Code>\n<Message>The provided token has expired.</Message></Error>",
  ),
  "gs": (401, b'{"error": {"code": 401,\n "message": "Invalid Credentials"}}'),
}
SLOW_SECONDS = 2.0


class Faults:
  """Which requests are disturbed, and how.

  Attributes:
    kind: of the server, s3 or gs.
    chosen: from the number of a request, from 1, to "500", "503", "slow", "reset" (no answer), "lost" (done, and the
      answer is lost), "expired", or None.
    seen: requests so far.
    done: the disturbances so far.
  """

  def __init__(self, kind: str):
    self.kind, self.seen, self.done = kind, 0, []
    self.chosen: Callable[[int], str | None] = lambda number: None
    self._lock = threading.Lock()

  def next(self) -> str | None:
    with self._lock:
      self.seen += 1
      fault = self.chosen(self.seen)
      if fault:
        self.done.append(fault)
      return fault


def _handler(port: int, faults: Faults) -> type[http.server.BaseHTTPRequestHandler]:
  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
      pass

    def _pass(self):
      body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
      fault = faults.next()
      if fault == "reset":
        return self._reset()
      if fault in ("500", "503"):
        return self._answer(int(fault), b"try again", {})
      if fault == "expired":
        return self._answer(*_EXPIRED[faults.kind], {})
      if fault == "slow":
        time.sleep(SLOW_SECONDS)

      upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
      upstream.request(self.command, self.path, body, dict(self.headers))
      answer = upstream.getresponse()
      content = answer.read()
      upstream.close()
      if fault == "lost":
        return self._reset()
      return self._answer(answer.status, content, dict(answer.getheaders()))

    def _answer(self, status: int, content: bytes, headers: dict[str, str]):
      self.send_response(status)
      for name, value in headers.items():
        if name.lower() not in (
          "content-length",
          "connection",
          "transfer-encoding",
          "date",
          "server",
        ):
          self.send_header(name, value)
      # Of a HEAD the length is that of what a GET would give.
      size = headers.get("Content-Length", len(content)) if self.command == "HEAD" else len(content)
      self.send_header("Content-Length", str(size))
      self.end_headers()
      if self.command != "HEAD":
        self.wfile.write(content)

    def _reset(self):
      # Closed at once, without the usual farewell: the other side gets "connection reset by peer".
      self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
      self.connection.close()
      self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815

    def finish(self):
      with contextlib.suppress(OSError, ValueError):
        super().finish()

  return Handler


@contextlib.contextmanager
def in_front_of(port: int, kind: str) -> Iterator[tuple[int, Faults]]:
  """The port of a server that passes on to `port`, and what it does on the way."""
  faults = Faults(kind)
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(port, faults))
  server.daemon_threads = True
  thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
  thread.start()
  try:
    yield server.server_address[1], faults
  finally:
    server.shutdown()
    server.server_close()
