"""Who says each token of a conversation, and which tokens may be taken where a config asks for some roles.

A store keeps a number a token, an index into `NAMES`; a document that is no conversation has none.
"""

from collections.abc import Sequence

import numpy as np

from nla_jax.conversation.messages import Message
from nla_jax.conversation.positions import ROLES
from nla_jax.conversation.tokens import CONTENT, REASONING
from nla_jax.errors import NLAError
from nla_jax.reading.inputs import tokens_of

# 0 is what the template writes; what an assistant thought before it answered is told from what it said.
NAMES = ("", *ROLES, REASONING)
LAST_OF_TURN = "last_of_turn"  # beside the roles, where numbers are given for each
GROUPS = ("user", "conversation")


def check_positions(data) -> None:
  """Raises NLAError where a config asks for roles or groups that nobody knows.

  Args:
    data: the config's section.
  """
  unknown = [name for name in wanted_roles(data) if name not in NAMES[1:]]
  if unknown:
    raise NLAError(
      f"config.data.roles={data.roles!r}: {unknown[0]!r} is none of {', '.join(NAMES[1:])}"
    )
  if data.group_by not in GROUPS:
    raise NLAError(f"config.data.group_by={data.group_by!r}: expected {' or '.join(GROUPS)}")


def wanted_roles(data) -> list[str]:
  """The roles that a config names; empty for all."""
  return [name.strip() for name in data.roles.split(",") if name.strip()]


def roles_of(tokenizer, messages: Sequence[Message], ids: Sequence[int]) -> np.ndarray:
  """Who says each token.

  Args:
    tokenizer: with a chat template.
    messages: of the conversation.
    ids: the first of its tokens, as the target sees them.

  Returns:
    [len(ids)] int8, index into `NAMES`; zeros where the template does not show what is whose.
  """
  tokens = tokens_of(tokenizer, list(messages))
  found = np.zeros(len(ids), np.int8)
  # Two ways of writing that differ would name tokens for the wrong speaker.
  if tokens.ids[: len(ids)] != list(ids):
    return found

  for i in range(len(ids)):
    role, section = tokens.roles[i], tokens.sections[i]
    if section == REASONING:
      found[i] = NAMES.index(REASONING)
    elif section == CONTENT and role in ROLES:
      found[i] = NAMES.index(role)
  return found


def last_of_turn(roles: np.ndarray, whole: bool) -> np.ndarray:
  """Which tokens are the last of what a message says.

  Args:
    roles: [n] of each token.
    whole: whether the conversation ends here; where it was cut, its last token ends no turn.

  Returns:
    [n] bool.
  """
  following = np.append(roles[1:], 0 if whole else roles[-1:])
  return (roles > 0) & (following != roles)


def allowed(roles: np.ndarray | None, data) -> np.ndarray | None:
  """Which tokens of a document may be taken; None where all may that are no special tokens.

  Args:
    roles: [n] of each token; None of a text, which is not asked for roles.
    data: the config's section.
  """
  wanted = wanted_roles(data)
  if roles is None or not (wanted or data.last_of_turn):
    return None
  taken = np.isin(roles, [NAMES.index(name) for name in wanted]) if wanted else roles > 0
  return taken & last_of_turn(roles, len(roles) < data.max_tokens) if data.last_of_turn else taken
