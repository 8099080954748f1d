"""One handler a path. A handler takes the body and returns what is answered: an object, or the frames of a stream."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np

from nla_jax.conversation.positions import choose
from nla_jax.conversation.tokens import Tokens
from nla_jax.serving import answers, asked, continuing, fields, generate
from nla_jax.serving.device import Partial
from nla_jax.serving.limits import RefusedError
from nla_jax.serving.reader import Draw, Row
from nla_jax.serving.service import Service

Body = dict[str, Any]
_TEMPERATURE, _NEW_TOKENS = 0.7, 200  # this API's defaults


async def explain(service: Service, body: Body) -> Body | AsyncIterator[bytes]:
  """Explanations of the target's activations at tokens of a text or a conversation."""
  wanted, draw = fields.positions(body, service.limits), asked.draw_of(service, body)
  stream, reverse = fields.flag(body, "stream", False), fields.flag(body, "reverse", True)
  tokens = await asked.tokens_of(service, body)
  places = _places(wanted, len(tokens), service.limits.positions)
  if reverse:
    places.reverse()

  found = await service.activations(tokens.ids, places)
  channels = fields.channels(body, asked.message_count(tokens))
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
  draw, stream = asked.draw_of(service, body), fields.flag(body, "stream", False)
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
  """An explanation of the difference of two activations, given, or at two `positions` of a text or conversation."""
  draw = asked.draw_of(service, body)
  if body.get("positions") is not None:
    a, b = await _two_of(service, body)
  else:
    width = service.reader.width
    a, b = (fields.vector(body, f"activation_{one}", width) for one in "ab")
  difference = a - b
  norm = float(np.linalg.norm(difference.astype(np.float64)))
  if not np.isfinite(difference).all():
    raise RefusedError(400, "the difference of the activations is larger than float32 holds")
  if not norm:
    raise RefusedError(400, "the activations are the same: their difference has no direction")
  [explained] = await service.explain(_rows(difference[None]), draw)
  return {**answers.description(explained), "diff_norm": norm}


async def _two_of(service: Service, body: Body) -> np.ndarray:
  """The activations [2, d_model] at the two positions that a body names; of our own, and lighter than `/extract`."""
  wanted = fields.positions(body, service.limits)
  if len(wanted) != 2:
    raise fields.wrong("positions", f"expected two of them, got {len(wanted)}")
  tokens = await asked.tokens_of(service, body)
  return await service.activations(tokens.ids, _places(wanted, len(tokens), 2))


async def weigh(service: Service, body: Body) -> Body:
  """The claims of an explanation of one token, with how far each can be trusted; of our own."""
  description = fields.text(body, "description", service.limits.description_chars)
  seed = fields.integer(body, "seed", 0, 0, 2**32 - 1)
  tokens = await asked.tokens_of(service, body, reply=False)
  places = choose(tokens, fields.position(body))
  if len(places) != 1:
    raise fields.wrong("position", f"it names {len(places)} tokens, and one can be weighed")
  claims = await service.device.call(
    lambda: service.reader.weigh(tokens.ids, places[0], description, seed)
  )
  return {"position": places[0], "claims": [answers.claim(one) for one in claims]}


async def extract(service: Service, body: Body) -> Body:
  """The target's activations at every token."""
  tokens = await asked.tokens_of(service, body)
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
  tokens = await asked.tokens_of(service, body)
  return {**asked.listed(body, tokens), "text": tokens.text}


async def read(service: Service, body: Body) -> Body | AsyncIterator[bytes]:
  """Several explanations of each chosen token, the best first; of our own, and wider than `/explain`."""
  limits = service.limits
  samples = fields.integer(body, "samples", 1, 1, limits.samples)
  best_of = fields.integer(body, "best_of", 4, 1, limits.best_of)
  draw = asked.draw_of(service, body, temperature=None, new_tokens=None)._replace(best_of=best_of)
  stream = fields.flag(body, "stream", False)

  # 1. The tokens, those that are meant, and their activations.
  tokens = await asked.tokens_of(service, body, reply=False)
  places = choose(tokens, body.get("positions", "last"), seed=draw.seed)
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


HANDLERS = {
  "/explain": explain,
  "/describe": describe,
  "/score": score,
  "/compare": compare,
  "/weigh": weigh,
  "/extract": extract,
  "/tokenize": tokenize,
  "/completion": continuing.completion,
  "/read": read,
  "/steer": continuing.steer,
  "/generate": generate.generate,
}
