"""Models behind OpenAI's interface: OpenAI's own, and those of vLLM, llama.cpp, Ollama, SGLang and others."""

import io
import json
from collections.abc import Sequence

from nla_jax.providers.request import Answer, Batch, Request
from nla_jax.providers.vendor import Vendor

_ENDPOINT = "/v1/chat/completions"
_ENDED = ("failed", "expired", "cancelled")


class OpenAI(Vendor):
  """A model behind OpenAI's interface; see `Vendor`."""

  name, client_class, key = "openai", "OpenAI", "OPENAI_API_KEY"

  def ask(self, request: Request) -> Answer:
    """See `Provider`."""
    with self._told():
      return _answer(self._client.chat.completions.create(**self._body(request)).model_dump())

  def send_batch(self, requests: Sequence[tuple[str, Request]]) -> str:
    """See `Provider`."""
    lines = [
      {"custom_id": digest, "method": "POST", "url": _ENDPOINT, "body": self._body(request)}
      for digest, request in requests
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    with self._told():
      file = self._client.files.create(
        file=("requests.jsonl", io.BytesIO(content)), purpose="batch"
      )
      return self._client.batches.create(
        input_file_id=file.id, endpoint=_ENDPOINT, completion_window="24h"
      ).id

  def poll_batch(self, batch: str) -> Batch:
    """See `Provider`."""
    with self._told():
      found = self._client.batches.retrieve(batch)
      if found.status != "completed" and found.status not in _ENDED:
        return Batch(False, {})
      text = self._client.files.content(found.output_file_id).text if found.output_file_id else ""

    answers = {}
    for line in map(json.loads, text.splitlines()):
      response = line.get("response") or {}
      if response.get("status_code") == 200:
        answers[line["custom_id"]] = _answer(response["body"])
    return Batch(True, answers)

  def _body(self, request: Request) -> dict:
    system = [{"role": "system", "content": request.system}] if request.system else []
    return {
      "model": self.model,
      "messages": [*system, {"role": "user", "content": request.prompt}],
      "max_completion_tokens" if self.own else "max_tokens": request.max_tokens,
      "temperature": request.temperature,
    }


def _answer(body: dict) -> Answer:
  """An answer of the chat endpoint."""
  usage, choices = body.get("usage") or {}, body.get("choices") or [{}]
  text = (choices[0].get("message") or {}).get("content")
  return Answer(text or None, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
