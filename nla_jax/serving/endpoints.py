"""One handler a path. A handler takes the body and returns what is answered: an object, or the frames of a stream."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np

from nla_jax.conversation.tokens import Tokens
from nla_jax.serving import answers, fields, generate
from nla_jax.serving.device import Partial
from nla_jax.serving.limits import RefusedError
from nla_jax.serving.reader import Draw, Row
from nla_jax.serving.service import Service

Body = dict[str, Any]
_TEMPERATURE, _NEW_TOKENS = 0.7, 200  # this API's defaults


async def explain(service: Service, body: Body) -> Body | AsyncIterator[bytes]:
  """Explanations of the target's activations at tokens of a text or a conversation."""
  wanted, draw = fields.positions(body, service.limits), _draw(service, body)
  stream, reverse = fields.flag(body, "stream", False), fields.flag(body, "reverse", True)
  tokens = await _tokens(service, body)
  places = _places(wanted, len(tokens), service.limits.positions)
  if reverse:
    places.reverse()

  found = await service.activations(tokens.ids, places)
  channels = fields.channels(body, _messages(tokens))
  norms = np.linalg.norm(found, axis=1)
  heads = [
    {**answers.token(tokens, i, channels), "l2_norm": float(norm), "generated": False}
    for i, norm in zip(places, norms)
  ]
  layer, rows = service.reader.layer, _rows(found)
  if stream:
    first = {"layer_index": layer, "total": len(rows), "prompt_length": len(tokens)}
    keys = [{"position": place} for place in places]
    return _stream(service, [first], rows, draw, keys, heads)

  explained = await service.explain(rows, draw)
  results = [{**head, **answers.description(one)} for head, one in zip(heads, explained)]
  return {"layer_index": layer, "results": results}


async def describe(service: Service, body: Body) -> Body | AsyncIterator[bytes]:
  """Explanations of activations."""
  width, most = service.reader.width, service.limits.describe_batch
  vectors = fields.vectors(body, "activations", width, most)
  draw, stream = _draw(service, body), fields.flag(body, "stream", False)
  rows = _rows(vectors)
  if stream:
    keys = [{"index": i} for i in range(len(rows))]
    return _stream(service, [], rows, draw, keys, keys)

  explained = await service.explain(rows, draw)
  return {"results": [answers.description(one) for one in explained]}


async def score(service: Service, body: Body) -> Body:
  """How well a text rebuilds an activation."""
  description = fields.text(body, "description", service.limits.description_chars)
  vector = fields.vector(body, "activation", service.reader.width)
  if not description.strip():
    raise fields.wrong("description", "it is empty: there is nothing to rebuild from")
  mse, cosine = await service.device.call(lambda: service.reader.score(description, vector))
  return {"mse": mse, "cosine_similarity": cosine}


async def compare(service: Service, body: Body) -> Body:
  """An explanation of the difference of two activations."""
  width = service.reader.width
  a, b = (fields.vector(body, f"activation_{one}", width) for one in "ab")
  draw, difference = _draw(service, body), a - b
  norm = float(np.linalg.norm(difference.astype(np.float64)))
  if not np.isfinite(difference).all():
    raise RefusedError(400, "the difference of the activations is larger than float32 holds")
  if not norm:
    raise RefusedError(400, "the activations are the same: their difference has no direction")
  [explained] = await service.explain(_rows(difference[None]), draw)
  return {**answers.description(explained), "diff_norm": norm}


async def extract(service: Service, body: Body) -> Body:
  """The target's activations at every token."""
  tokens = await _tokens(service, body)
  places = _places([], len(tokens), service.limits.positions)
  found = await service.activations(tokens.ids, places)
  kept = ("token", "token_id", "position")
  rows = []
  for i, activation in zip(places, found):
    head = answers.token(tokens, i)
    norm = float(np.linalg.norm(activation))
    rows.append(
      {**{key: head[key] for key in kept}, "activation": activation.tolist(), "l2_norm": norm}
    )
  return {"layer_index": service.reader.layer, "tokens": rows}


async def tokenize(service: Service, body: Body) -> Body:
  """The tokens that the target would read."""
  tokens = await _tokens(service, body)
  return {**_listed(body, tokens), "text": tokens.text}


async def read(service: Service, body: Body) -> Body | AsyncIterator[bytes]:
  """Several explanations of each chosen token, the best first; of our own, and wider than `/explain`."""
  limits = service.limits
  samples = fields.integer(body, "samples", 1, 1, limits.samples)
  best_of = fields.integer(body, "best_of", 4, 1, limits.best_of)
  draw = _draw(service, body, temperature=None, new_tokens=None)._replace(best_of=best_of)
  stream = fields.flag(body, "stream", False)

  # 1. The tokens, those that are meant, and their activations.
  tokens = await _tokens(service, body, reply=False)
  places = await service.positions(tokens, body.get("positions", "last"), draw.seed)
  draws = len(places) * samples * best_of
  if len(places) > limits.positions or draws > limits.draws:
    raise fields.wrong(
      "positions",
      f"{len(places)} positions with {samples} samples of best of {best_of} are {draws:,} draws, and this server takes "
      f"at most {limits.positions} positions and {limits.draws:,} draws: choose fewer",
    )
  found = await service.activations(tokens.ids, places)

  # 2. A row for each sample; each draws from a stream of its own.
  rows = [Row(vector, number) for number, vector in enumerate(np.repeat(found, samples, axis=0))]
  norms = np.linalg.norm(found, axis=1).tolist()
  if stream:
    return _reading(service, tokens, (places, norms), rows, draw)

  explained = await service.explain(rows, draw)
  groups = [explained[i : i + samples] for i in range(0, len(rows), samples)]
  return service.reader.reading(tokens, places, groups, norms, best_of).to_json()


async def _reading(
  service: Service,
  tokens: Tokens,
  chosen: tuple[Sequence[int], Sequence[float]],
  rows: Sequence[Row],
  draw: Draw,
) -> AsyncIterator[bytes]:
  """The frames of `/read`: a position's result comes when all of its samples are there."""
  places, norms = chosen
  samples = len(rows) // len(places)
  first = {
    "layer_index": service.reader.layer,
    "total": len(places),
    "prompt_length": len(tokens),
    "positions": places,
    "samples": samples,
    "best_of": draw.best_of,
    "baseline": service.reader.baseline,
  }
  yield answers.frame(first)

  groups: list[list[Any]] = [[None] * samples for _ in places]
  async for row, found in service.explaining(rows, draw):
    i, number = divmod(row, samples)
    if isinstance(found, Partial):
      partial = {"position": places[i], "sample": number, "text": found.text, "done": False}
      yield answers.frame(partial)
      continue

    groups[i][number] = found
    if all(one is not None for one in groups[i]):
      about = ([places[i]], [groups[i]], [norms[i]], draw.best_of)
      reading = service.reader.reading(tokens, *about)
      yield answers.frame({**reading.row(0), "done": True})
  yield answers.END


async def _stream(
  service: Service,
  first: Sequence[Body],
  rows: Sequence[Row],
  draw: Draw,
  keys: Sequence[Body],
  heads: Sequence[Body],
) -> AsyncIterator[bytes]:
  """Frames: what comes first, answers so far, each explanation, and the end."""
  for one in first:
    yield answers.frame(one)
  async for row, found in service.explaining(rows, draw):
    if isinstance(found, Partial):
      # Clients know a partial answer by its lack of a description.
      yield answers.frame({**keys[row], "text": found.text, "done": False})
    else:
      yield answers.frame({**heads[row], **answers.description(found)})
  yield answers.END


async def _tokens(service: Service, body: Body, reply: bool = True) -> Tokens:
  """The tokens of a body's `text` or `messages`; `reply` is the default of `add_generation_prompt`."""
  what = fields.conversation(body, service.limits)
  if isinstance(what, str):
    return await service.tokens(what)
  resume = fields.flag(body, "continue_final_message", False)
  reply = fields.flag(body, "add_generation_prompt", reply and not resume)
  thinking = fields.flag(body, "enable_thinking", None)
  # Clients leave the default of the one in place where they set the other.
  return await service.tokens(what, reply=reply and not resume, resume=resume, thinking=thinking)


def _listed(body: Body, tokens: Tokens) -> Body:
  channels = fields.channels(body, _messages(tokens))
  found = [answers.token(tokens, i, channels) for i in range(len(tokens))]
  return {"tokens": found, "prompt_length": len(tokens)}


def _messages(tokens: Tokens) -> int:
  return max((one for one in tokens.messages if one is not None), default=-1) + 1


def _places(wanted: Sequence[int], n: int, most: int) -> list[int]:
  """Positions from 0; all of them where none are named."""
  outside = [one for one in wanted if not -n <= one < n]
  if outside:
    raise RefusedError(
      400,
      f"position {outside[0]} is outside: there are {n} tokens, so expected {-n} to {n - 1}",
      "positions",
    )
  places = [one % n for one in wanted] or list(range(n))
  if len(places) > most:
    raise RefusedError(
      400,
      f"{n} tokens are more than the {most} positions of one request: name some in `positions`, or send a shorter text",
      "positions",
    )
  return places


def _rows(vectors: np.ndarray) -> list[Row]:
  return [Row(vector, i) for i, vector in enumerate(vectors)]


def _draw(
  service: Service,
  body: Body,
  temperature: float | None = _TEMPERATURE,
  new_tokens: int | None = _NEW_TOKENS,
) -> Draw:
  """How explanations are drawn; None takes the pair's own value as the default."""
  reader, most = service.reader, service.limits.new_tokens
  default = reader.temperature if temperature is None else temperature
  heat = fields.number(body, "temperature", default, 0.0, 5.0)
  cap = min(reader.max_new_tokens if new_tokens is None else new_tokens, most)
  cap = fields.integer(body, "max_new_tokens", cap, 1, most)
  greedy = fields.flag(body, "greedy", False) or heat == 0
  seed = fields.integer(body, "seed", 0, 0, 2**32 - 1)
  # What is not drawn has no temperature: such requests share their batches.
  return Draw(1.0 if greedy else heat, greedy, cap, 1, 0 if greedy else seed)


async def completion(service: Service, body: Body) -> Body | AsyncIterator[bytes]:
  """What the target writes after a text or a conversation."""
  limits = service.limits
  wanted = fields.integer(body, "completion_tokens", 16, 1, 2**31)
  draw, stream = _draw(service, body), fields.flag(body, "stream", False)
  # This API cuts what is too large here, where it refuses it elsewhere.
  draw = draw._replace(max_new_tokens=min(wanted, limits.completion_tokens))
  tokens = await _tokens(service, body)
  prompt = _listed(body, tokens)
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
  spoken = _messages(tokens) > 0
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


HANDLERS = {
  "/explain": explain,
  "/describe": describe,
  "/score": score,
  "/compare": compare,
  "/extract": extract,
  "/tokenize": tokenize,
  "/completion": completion,
  "/read": read,
  "/steer": steer,
  "/generate": generate.generate,
}
