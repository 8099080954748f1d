"""A server on this machine with the interfaces of OpenAI and Anthropic: it counts answers, and fails on demand."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from support.bucket_servers import free_port


class ModelServer:
  """What it does and what it saw.

  Attributes:
    busy: so many next requests are refused with 429 and Retry-After.
    broken: prompts that hold this word are refused with 500 for ever.
    unfinished: polls that a batch is not yet done.
    answered: prompts, in the order in which they were answered.
    input_tokens, output_tokens: what it would bill.
    most_at_once: requests under way at one time.
  """

  def __init__(self):
    self.busy, self.broken, self.unfinished, self.key = 0, "", 0, "right"
    self.answered, self.input_tokens, self.output_tokens = [], 0, 0
    self.most_at_once, self._now, self._batches, self._files = 0, 0, {}, {}
    self.batches_begun = 0

  def answer(self, prompt: str, cap: int) -> tuple[str, dict]:
    """What the model says: how long the prompt is; it is counted."""
    text = (
      f"<explanation>\nA text of {len(prompt)} letters\nEnds: {prompt.strip()[-4:]}\n</explanation>"
    )
    usage = {"input": len(prompt.split()), "output": min(len(text.split()), cap)}
    self.answered.append(prompt)
    self.input_tokens += usage["input"]
    self.output_tokens += usage["output"]
    return text, usage

  async def openai(self, request: Request) -> JSONResponse:
    body = await request.json()
    if refused := await self._refused(request, request.headers.get("authorization"), body):
      return refused
    return JSONResponse(self._openai_body(body))

  def _openai_body(self, body: dict) -> dict:
    text, usage = self.answer(body["messages"][-1]["content"], body.get("max_tokens", 10**6))
    choice = {
      "index": 0,
      "message": {"role": "assistant", "content": text},
      "finish_reason": "stop",
    }
    return {
      "id": "x",
      "object": "chat.completion",
      "created": 0,
      "model": body["model"],
      "choices": [choice],
      "usage": {
        "prompt_tokens": usage["input"],
        "completion_tokens": usage["output"],
        "total_tokens": sum(usage.values()),
      },
    }

  async def anthropic(self, request: Request) -> JSONResponse:
    body = await request.json()
    if refused := await self._refused(request, request.headers.get("authorization"), body):
      return refused
    return JSONResponse(self._anthropic_body(body))

  def _anthropic_body(self, body: dict) -> dict:
    text, usage = self.answer(body["messages"][-1]["content"], body["max_tokens"])
    return {
      "id": "x",
      "type": "message",
      "role": "assistant",
      "model": body["model"],
      "content": [{"type": "text", "text": text}],
      "stop_reason": "end_turn",
      "stop_sequence": None,
      "usage": {"input_tokens": usage["input"], "output_tokens": usage["output"]},
    }

  async def _refused(self, request: Request, key: str | None, body: dict) -> JSONResponse | None:
    if self.key not in (key or ""):
      return JSONResponse({"error": {"message": "no such key"}}, 401)
    if body["model"] == "none":
      return JSONResponse({"error": {"message": "no such model"}}, 404)
    if self.busy:
      self.busy -= 1
      return JSONResponse({"error": {"message": "busy"}}, 429, {"Retry-After": "0.05"})
    if self.broken and self.broken in body["messages"][-1]["content"]:
      return JSONResponse({"error": {"message": "broken"}}, 500, {"Retry-After": "0.01"})
    self._now += 1
    self.most_at_once = max(self.most_at_once, self._now)
    await asyncio.sleep(0.02)
    self._now -= 1
    return None

  async def upload(self, request: Request) -> JSONResponse:
    # A form in parts, of which only the file's lines matter here.
    lines = (await request.body()).decode().splitlines()
    name = f"file-{len(self._files)}"
    self._files[name] = "\n".join(line for line in lines if line.startswith('{"custom_id"'))
    return JSONResponse(
      {
        "id": name,
        "object": "file",
        "bytes": 1,
        "created_at": 0,
        "filename": "x",
        "purpose": "batch",
        "status": "processed",
      }
    )

  async def openai_batch(self, request: Request) -> JSONResponse:
    body = await request.json()
    self.batches_begun += 1
    lines = map(json.loads, self._files[body["input_file_id"]].splitlines())
    done = [
      {
        "custom_id": line["custom_id"],
        "response": {"status_code": 200, "body": self._openai_body(line["body"])},
      }
      for line in lines
    ]
    self._files["out"] = "\n".join(map(json.dumps, done))
    return JSONResponse(self._openai_state("in_progress"))

  def _openai_state(self, status: str) -> dict:
    return {
      "id": "batch-1", "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-0",
      "completion_window": "24h", "status": status, "created_at": 0,
      "output_file_id": "out" if status == "completed" else None,
    }  # fmt: skip

  async def openai_poll(self, request: Request) -> JSONResponse:
    self.unfinished -= 1
    return JSONResponse(self._openai_state("completed" if self.unfinished < 0 else "in_progress"))

  async def content(self, request: Request) -> PlainTextResponse:
    return PlainTextResponse(self._files[request.path_params["name"]])

  async def anthropic_batch(self, request: Request) -> JSONResponse:
    self.batches_begun += 1
    self._batches["batch-1"] = [
      {
        "custom_id": line["custom_id"],
        "result": {"type": "succeeded", "message": self._anthropic_body(line["params"])},
      }
      for line in (await request.json())["requests"]
    ]
    return JSONResponse(self._anthropic_state(request, "in_progress"))

  def _anthropic_state(self, request: Request, status: str) -> dict:
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    return {
      "id": "batch-1", "type": "message_batch", "processing_status": status, "request_counts": counts,
      "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z", "archived_at": None,
      "cancel_initiated_at": None, "ended_at": None,
      "results_url": f"{request.base_url}v1/messages/batches/batch-1/results" if status == "ended" else None,
    }  # fmt: skip

  async def anthropic_poll(self, request: Request) -> JSONResponse:
    self.unfinished -= 1
    done = "ended" if self.unfinished < 0 else "in_progress"
    return JSONResponse(self._anthropic_state(request, done))

  async def anthropic_results(self, request: Request) -> PlainTextResponse:
    lines = "\n".join(map(json.dumps, self._batches["batch-1"]))
    return PlainTextResponse(lines, media_type="application/x-jsonl")


@contextlib.contextmanager
def serving() -> Iterator[tuple[ModelServer, str]]:
  """A server and its address."""
  model, port = ModelServer(), free_port()
  app = Starlette(
    routes=[
      Route("/v1/chat/completions", model.openai, methods=["POST"]),
      Route("/v1/files", model.upload, methods=["POST"]),
      Route("/v1/files/{name}/content", model.content),
      Route("/v1/batches", model.openai_batch, methods=["POST"]),
      Route("/v1/batches/{name}", model.openai_poll),
      Route("/v1/messages", model.anthropic, methods=["POST"]),
      Route("/v1/messages/batches", model.anthropic_batch, methods=["POST"]),
      Route("/v1/messages/batches/{name}", model.anthropic_poll),
      Route("/v1/messages/batches/{name}/results", model.anthropic_results),
    ]
  )
  server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
  thread = threading.Thread(target=server.run, daemon=True)
  thread.start()
  while not server.started:
    time.sleep(0.01)
  try:
    yield model, f"http://127.0.0.1:{port}"
  finally:
    server.should_exit = True
    thread.join()
