"""The application: routes, what is checked before a handler runs, and how mistakes are answered.

1. Who asks: the secret; without one, a `Host` that is this machine, so that no web page elsewhere gets an answer.
2. A place among those that are worked on at once, or 429 at once. It is kept until the answer is sent or its client is
   gone.
3. The body, counted while it comes in.
4. The handler. What it awaits has a deadline.
"""

import asyncio
import hmac
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from nla_jax.errors import NLAError
from nla_jax.serving import answers, endpoints
from nla_jax.serving.limits import RefusedError, parse
from nla_jax.serving.service import Service

PAGE = Path(__file__).parent / "explorer"
_HERE = ("127.0.0.1", "localhost", "[::1]", "testserver")
_ABORT_SECONDS = 15.0  # that a client may take to read, after the deadline of its request

Handler = Callable[[Service, dict[str, Any]], Awaitable[dict | list | AsyncIterator[bytes]]]


def application(service: Service, page: Path = PAGE) -> Starlette:
  """The server of one service.

  Args:
    service: what answers.
    page: folder of the explorer; where there is none, `/` answers JSON to everyone.
  """
  routes = [Route("/", _Root(service, page), methods=["GET", "HEAD"])]
  for path, handler in endpoints.HANDLERS.items():
    routes.append(Route(path, _Endpoint(service, handler), methods=["POST"]))
  if page.is_dir():
    routes.append(Route("/explorer/", lambda request: RedirectResponse("../"), methods=["GET"]))
    routes.append(Mount("/explorer", _Files(directory=page)))

  handlers = {HTTPException: _not_served, Exception: _failed}
  return Starlette(routes=routes, exception_handlers=handlers)


class _Files(StaticFiles):
  """The page's files; a browser asks again before it takes an old one."""

  def file_response(self, *args: Any, **kwargs: Any) -> Response:
    response = super().file_response(*args, **kwargs)
    response.headers.update({"cache-control": "no-cache", "x-content-type-options": "nosniff"})
    return response


class _Root:
  """`/`: the page to a browser, and the status to everyone else."""

  def __init__(self, service: Service, page: Path):
    self.service, self.page = service, page / "index.html"

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    wants_page = "text/html" in Headers(scope=scope).get("accept", "")
    if wants_page and self.page.is_file():
      headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff", "vary": "accept"}
      await FileResponse(self.page, headers=headers)(scope, receive, send)
      return
    try:
      _check_caller(self.service.secret, Headers(scope=scope))
      response = _json(self.service.status(), headers={"vary": "accept"})
    except RefusedError as error:
      response = refusal(error)
    await response(scope, receive, send)


class _Endpoint:
  """One path: an application of its own, so that the place is held until the answer is sent."""

  def __init__(self, service: Service, handler: Handler):
    self.service, self.handler = service, handler

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    service, headers = self.service, Headers(scope=scope)
    try:
      _check_caller(service.secret, headers)
      _check_body(headers, service.limits.body_bytes)
      service.enter()
    except RefusedError as error:
      await refusal(error)(scope, receive, send)
      return

    response = None
    try:
      # The last resort against a client that stops reading; what is computed has its own deadline.
      async with asyncio.timeout(service.limits.request_seconds + _ABORT_SECONDS):
        response = await self._answer(Request(scope, receive))
        if response is not None:
          await response(scope, receive, send)
    except TimeoutError:
      print(f"nla serve: {scope['path']}: its client stopped reading; closed", flush=True)
    finally:
      # A stream whose client left between two frames is ended here, and so frees the device.
      if isinstance(response, StreamingResponse):
        await response.body_iterator.aclose()
      service.leave()

  async def _answer(self, request: Request) -> Response | None:
    """The response; None where the client is gone."""
    limits = self.service.limits
    try:
      body = parse(await _body(request, limits.body_bytes, limits.body_seconds))
      deadline = asyncio.get_running_loop().time() + limits.request_seconds
      found = await _unless_gone(self.handler(self.service, body), request.receive, deadline)
    except RefusedError as error:
      return refusal(error)
    except NLAError as error:
      return refusal(RefusedError(400, str(error)))
    except Exception as error:
      return await _failed(request, error)

    if found is None:
      return None
    if isinstance(found, AsyncIterator):
      headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
      content = _until_error(found, deadline)
      return StreamingResponse(content, media_type="text/event-stream", headers=headers)
    return _json(found)


def _check_caller(secret: str | None, headers: Headers) -> None:
  """Raises RefusedError where the secret is missing or wrong, or, without one, where the `Host` is not this machine."""
  if secret is not None:
    given = headers.get("x-secret-key")
    if given is None:
      raise RefusedError(401, "this server asks for a secret: send it in the header X-SECRET-KEY")
    if not hmac.compare_digest(given.encode(), secret.encode()):
      raise RefusedError(403, "the secret in the header X-SECRET-KEY is wrong")
    return

  # A page elsewhere can point its own name at this address, and would then read the answers.
  host = headers.get("host", "").lower()
  if host.rpartition(":")[0] not in _HERE and host not in _HERE:
    raise RefusedError(
      403, f"the request names the host {host[:60]!r}: ask 127.0.0.1 or localhost, or set a secret"
    )


def _check_body(headers: Headers, most: int) -> None:
  """Raises RefusedError where a body is announced that would not be read."""
  kind = headers.get("content-type", "").partition(";")[0].strip().lower()
  # A form of another site can send other types without asking, and this one not.
  if kind != "application/json":
    raise RefusedError(
      415, f"the body is {kind or 'of no type'}: send JSON with Content-Type: application/json"
    )
  length = headers.get("content-length", "0")
  if length.isdigit() and int(length) > most:
    raise _too_large(most)


def _too_large(most: int) -> RefusedError:
  return RefusedError(413, f"the body is larger than {most:,} bytes: send less in one request")


async def _body(request: Request, most: int, seconds: float) -> bytes:
  """The whole body. Raises RefusedError where it is too large or does not come."""
  parts, size = [], 0
  try:
    async with asyncio.timeout(seconds):
      async for part in request.stream():
        size += len(part)
        if size > most:
          raise _too_large(most)
        parts.append(part)
  except TimeoutError:
    raise RefusedError(408, f"the body did not arrive within {seconds:g} seconds") from None
  return b"".join(parts)


async def _unless_gone(answer: Awaitable, receive: Receive, deadline: float) -> Any:
  """What a handler returns; None where its client is gone before. Raises RefusedError at the deadline."""
  work = asyncio.ensure_future(answer)
  gone = asyncio.ensure_future(_gone(receive))
  try:
    left = max(deadline - asyncio.get_running_loop().time(), 0)
    await asyncio.wait({work, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
      return work.result()
    if gone.done():
      return None
    raise _late()
  finally:
    # Ended here, both leave the device's queue and the connection as they were.
    for task in (work, gone):
      task.cancel()
    await asyncio.gather(work, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
  while (await receive())["type"] != "http.disconnect":
    pass


def _late() -> RefusedError:
  return RefusedError(504, "the answer took too long: ask for fewer positions or draws at once")


async def _until_error(frames: AsyncIterator[bytes], deadline: float) -> AsyncIterator[bytes]:
  """The frames of a stream; one that fails ends with a frame that says why, and without `[DONE]`."""
  try:
    while True:
      async with asyncio.timeout_at(deadline):
        found = await anext(frames, None)
      if found is None:
        return
      yield found
  except TimeoutError:
    error = _late()
  except NLAError as failed:
    error = failed
  except Exception as failed:
    traceback.print_exception(failed)
    error = RefusedError(500, "the server failed; its log says more")
  finally:
    await frames.aclose()
  yield answers.frame({"error": str(error), "status": getattr(error, "status", 400)})


def refusal(error: RefusedError) -> Response:
  """The answer to a request that is refused."""
  detail: Any = str(error)
  if error.status == 422:
    # The shape that clients of this API know for a wrong field.
    detail = [{"loc": ["body", error.field], "msg": str(error), "type": "value_error"}]
  headers = {"retry-after": "1"} if error.status in (429, 503) else {}
  if error.status in (408, 413):
    headers["connection"] = "close"
  return _json({"detail": detail}, error.status, headers)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
  headers = {"cache-control": "no-store", **(headers or {})}
  return Response(answers.encoded(value), status, headers, "application/json")


async def _not_served(request: Request, error: Exception) -> Response:
  """A path or a method that is not served."""
  status = error.status_code
  ways = ", ".join(["GET /", *(f"POST {path}" for path in endpoints.HANDLERS)])
  found = RefusedError(status, f"{request.method} {request.url.path[:60]} is not served: {ways}")
  response = refusal(found)
  response.headers.update(error.headers or {})
  return response


async def _failed(request: Request, error: Exception) -> Response:
  traceback.print_exception(error)
  return refusal(RefusedError(500, "the server failed; its log says more"))
