"""The paths that the whole target writes for: `/completion`, and `/steer` of our own."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from nla_jax.conversation.tokens import Tokens
from nla_jax.serving import answers, asked, fields
from nla_jax.serving.device import Partial
from nla_jax.serving.reader import Draw
from nla_jax.serving.service import Service

Body = dict[str, Any]


async def completion(service: Service, body: Body) -> Body | AsyncIterator[bytes]:
  """What the target writes after a text or a conversation."""
  limits = service.limits
  wanted = fields.integer(body, "completion_tokens", 16, 1, 2**31)
  draw, stream = asked.draw_of(service, body), fields.flag(body, "stream", False)
  # This API cuts what is too large here, where it refuses it elsewhere.
  draw = draw._replace(max_new_tokens=min(wanted, limits.completion_tokens))
  tokens = await asked.tokens_of(service, body)
  prompt = asked.listed(body, tokens)
  if stream:
    return _completing(service, tokens, prompt, draw)

  ids = await service.device.call(lambda: service.reader.complete(tokens.ids, draw))
  new, text = await _written(service, tokens, ids)
  return {**prompt, "tokens": [*prompt["tokens"], *new], "text": text}


async def _completing(
  service: Service, tokens: Tokens, prompt: Body, draw: Draw
) -> AsyncIterator[bytes]:
  """The frames of `/completion`: each token when its characters are whole."""
  yield answers.frame({"type": "prompt", **prompt})
  sent, text, reader = 0, tokens.text, service.reader
  async for _, found in service.device.watched(
    lambda show: reader.complete(tokens.ids, draw, show)
  ):
    over = not isinstance(found, Partial)
    new, text = await _written(service, tokens, found if over else found.text)
    # The last tokens may be a part of a character that the next one completes.
    whole = len(new) if over else _whole(new)
    for one in new[sent:whole]:
      yield answers.frame({"type": "token", "token": one})
    sent = max(sent, whole)
  yield answers.frame({"type": "done", "text": text})
  yield answers.END


def _whole(tokens: Sequence[Body]) -> int:
  """How many tokens stand before a character that is still being written."""
  n = len(tokens)
  while n and "\ufffd" in tokens[n - 1]["token"]:
    n -= 1
  return n


async def _written(service: Service, tokens: Tokens, ids: Sequence[int]) -> tuple[list[Body], str]:
  """Tokens that the target wrote behind others, and the whole text."""
  if not ids:
    return [], tokens.text
  written, found = await service.tokens(ids), []
  # Of a conversation they are the assistant's words; a text has no roles.
  spoken = asked.message_count(tokens) > 0
  whose = {"role": "assistant", "section": "content"} if spoken else {}
  for i in range(len(written)):
    place = {"position": len(tokens) + i}
    found.append({**answers.token(written, i), "section": None, **whose, **place})
  return found, tokens.text + written.text


async def steer(service: Service, body: Body) -> Body:
  """What the target writes once an explanation is edited, beside three controls; of our own."""
  limits = service.limits
  what, position = fields.conversation(body, limits), fields.position(body)
  edit = fields.edit(body, limits.description_chars)
  options = {
    "strength": fields.strengths(body, (0.25, 0.5, 1.0), limits.strengths),
    "words": fields.words(body, "words", limits.samples, limits.description_chars),
    "tokens": fields.integer(body, "tokens", 24, 0, limits.completion_tokens),
    "samples": fields.integer(body, "samples", 1, 1, limits.samples),
    "best_of": fields.integer(body, "best_of", 4, 1, limits.best_of),
    "seed": fields.integer(body, "seed", 0, 0, 2**32 - 1),
  }
  heat = fields.number(body, "temperature", 1.0, 0.0, 5.0)
  greedy = fields.flag(body, "greedy", False) or heat == 0
  options |= {"greedy": True} if greedy else {"temperature": heat}
  for name in ("explanation", "where", "mode"):
    if body.get(name) is not None:
      options[name] = fields.text(body, name, limits.description_chars)
  return await service.device.call(lambda: service.reader.steer(what, position, edit, options))
