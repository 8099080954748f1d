"""`/generate`: what the reference's client sends, a prompt as embeddings with a scaled activation at the slot.

The client looks the prompt up in the AV's embedding table, in bfloat16, and puts the activation, at norm α, over the
marker's row. Here the rows are held against the pair's own prompt: those of the prompt have to be its embeddings, and
the row at the slot is the activation. It is then explained like any other, in one batch with others.
"""

from typing import Any

import numpy as np

from nla_jax.serving import fields
from nla_jax.serving.limits import RefusedError
from nla_jax.serving.reader import Draw, Row
from nla_jax.serving.service import Service

# Of a row's length: rounding an embedding to bfloat16 moves it by at most 2⁻⁹ of it, twice at worst.
_TOLERANCE = 2**-7
_EXPECTED = "expected input_embeds: [T][d] numbers, or a list of such prompts"


async def generate(service: Service, body: dict[str, Any]) -> Any:
  """The AV's answer to each prompt, with its tags: an object, or a list of them for a list of prompts."""
  prompts, several = _prompts(body)
  if len(prompts) > service.limits.describe_batch:
    raise fields.wrong(
      "input_embeds",
      f"{len(prompts)} prompts, and this server takes {service.limits.describe_batch}",
    )
  own, slot = service.reader.prompt_embeddings()
  vectors = [_vector(prompt, own, slot) for prompt in prompts]
  draw = _draw(service, body.get("sampling_params"))

  rows = [Row(vector, i) for i, vector in enumerate(vectors)]
  found = await service.explain(rows, draw)
  answered = [
    {
      "text": one.answer,
      "meta_info": {
        "finish_reason": {"type": service.reader.ending(one)},
        "prompt_tokens": len(own),
      },
    }
    for one in found
  ]
  return answered if several else answered[0]


def _prompts(body: dict[str, Any]) -> tuple[list[np.ndarray], bool]:
  """[T, d] float32 of each prompt, and whether a list of them was sent."""
  given = body.get("input_embeds")
  if not isinstance(given, list) or not given:
    raise fields.wrong("input_embeds", _EXPECTED + "; this server takes no text or input_ids here")
  if body.get("stream"):
    raise fields.wrong("stream", "this path does not stream: leave it out, or ask /describe")
  several = isinstance(given[0], list) and bool(given[0]) and isinstance(given[0][0], list)

  found = [fields.floats(one, "input_embeds") for one in (given if several else [given])]
  if any(one.ndim != 2 for one in found):
    raise fields.wrong("input_embeds", _EXPECTED)
  return found, several


def _vector(prompt: np.ndarray, own: np.ndarray, slot: int) -> np.ndarray:
  """The activation in a prompt. Raises RefusedError where it is another prompt than the pair's."""
  if prompt.shape != own.shape:
    raise RefusedError(
      400,
      f"input_embeds is {list(prompt.shape)}, and this pair's prompt with its activation is {list(own.shape)}: send "
      "the prompt of its sidecar",
      "input_embeds",
    )
  if not np.isfinite(prompt).all() or not prompt[slot].any():
    raise RefusedError(
      400, "input_embeds holds a number that is not finite, or a zero activation", "input_embeds"
    )

  others = np.arange(len(own)) != slot
  off = np.linalg.norm(prompt - own, axis=1) > _TOLERANCE * np.linalg.norm(own, axis=1)
  if (off & others).any():
    row = int(np.flatnonzero(off & others)[0])
    raise RefusedError(
      400,
      f"row {row} of input_embeds is not the embedding of this pair's prompt: this server explains activations in the "
      "prompt of the pair's sidecar alone, and takes the embeddings of the same export",
      "input_embeds",
    )
  return prompt[slot]


def _draw(service: Service, given: Any) -> Draw:
  """How answers are drawn. Raises RefusedError where a setting would be ignored that changes what is drawn."""
  params = {} if given is None else given
  if not isinstance(params, dict):
    raise fields.wrong("sampling_params", "expected an object")
  heat = fields.number(params, "temperature", 1.0, 0.0, 5.0)
  most = service.limits.new_tokens
  # The client's own default; a larger cap than this server's is what it serves.
  cap = min(fields.integer(params, "max_new_tokens", 128, 1, 2**31), most)
  seed = fields.integer(params, "sampling_seed", 0, 0, 2**32 - 1)

  # 1. Without an effect at these values, and refused at others.
  neutral = {"top_p": (1, 1.0), "top_k": (-1, 1), "min_p": (0, 0.0), "n": (1,)}
  neutral |= {f"{one}_penalty": (0, 0.0) for one in ("frequency", "presence")}
  neutral |= {
    "repetition_penalty": (1, 1.0),
    "stop": ("", []),
    "stop_token_ids": ([],),
    "regex": (),
  }
  for name, values in neutral.items():
    value = params.get(name)
    if value is None or value in values or (heat == 0 and name in ("top_p", "min_p")):
      continue
    raise fields.wrong(
      f"sampling_params.{name}", "this server draws from the AV's whole distribution: leave it out"
    )

  # 2. top_k of 1 is the likeliest word, as a temperature of zero is.
  greedy = heat == 0 or params.get("top_k") == 1
  return Draw(1.0 if greedy else heat, greedy, cap, 1, 0 if greedy else seed)
