"""Anthropic's models. Their interface takes no temperature: a request's is not sent."""

from collections.abc import Sequence

from nla_jax.providers.request import Answer, Batch, Request
from nla_jax.providers.vendor import Vendor


class Anthropic(Vendor):
  """A model of Anthropic's; see `Vendor`."""

  name, client_class, key = "anthropic", "Anthropic", "ANTHROPIC_API_KEY"

  def ask(self, request: Request) -> Answer:
    """See `Provider`."""
    with self._told():
      return _answer(self._client.messages.create(**self._body(request)).model_dump())

  def send_batch(self, requests: Sequence[tuple[str, Request]]) -> str:
    """See `Provider`."""
    lines = [{"custom_id": digest, "params": self._body(request)} for digest, request in requests]
    with self._told():
      return self._client.messages.batches.create(requests=lines).id

  def poll_batch(self, batch: str) -> Batch:
    """See `Provider`."""
    with self._told():
      if self._client.messages.batches.retrieve(batch).processing_status != "ended":
        return Batch(False, {})
      lines = [line.model_dump() for line in self._client.messages.batches.results(batch)]
    found = {
      line["custom_id"]: _answer(line["result"]["message"])
      for line in lines
      if line["result"]["type"] == "succeeded"
    }
    return Batch(True, found)

  def _body(self, request: Request) -> dict:
    system = {"system": request.system} if request.system else {}
    return {
      "model": self.model,
      "max_tokens": request.max_tokens,
      "messages": [{"role": "user", "content": request.prompt}],
      **system,
    }


def _answer(body: dict) -> Answer:
  """An answer of the messages endpoint."""
  usage = body.get("usage") or {}
  text = "".join(part.get("text") or "" for part in body.get("content") or ())
  return Answer(text or None, usage.get("input_tokens", 0), usage.get("output_tokens", 0))
