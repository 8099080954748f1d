"""What several paths are asked in the same way: a text or a conversation, and how explanations are drawn."""

from typing import Any

from nla_jax.conversation.tokens import Tokens
from nla_jax.serving import answers, fields
from nla_jax.serving.reader import Draw
from nla_jax.serving.service import Service

Body = dict[str, Any]
_TEMPERATURE, _NEW_TOKENS = 0.7, 200  # Neuronpedia's defaults


async def tokens_of(service: Service, body: Body, reply: bool = True) -> Tokens:
  """The tokens of a body's `text` or `messages`; `reply` is the default of `add_generation_prompt`."""
  what = fields.conversation(body, service.limits)
  if isinstance(what, str):
    return await service.tokens(what)
  resume = fields.flag(body, "continue_final_message", False)
  reply = fields.flag(body, "add_generation_prompt", reply and not resume)
  thinking = fields.flag(body, "enable_thinking", None)
  # Clients leave the default of the one in place where they set the other.
  return await service.tokens(what, reply=reply and not resume, resume=resume, thinking=thinking)


def draw_of(
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


def listed(body: Body, tokens: Tokens) -> Body:
  channels = fields.channels(body, message_count(tokens))
  found = [answers.token(tokens, i, channels) for i in range(len(tokens))]
  return {"tokens": found, "prompt_length": len(tokens)}


def message_count(tokens: Tokens) -> int:
  return max((one for one in tokens.messages if one is not None), default=-1) + 1
