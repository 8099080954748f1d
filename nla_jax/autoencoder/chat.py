"""Conversations as a tokenizer's chat template writes them.

A chat template is a program of the model's makers, and it is not trusted: it may raise, drop what it is given, or write
another text on each day. It is run in one place (`written`), which turns every failure into one line with its words.
"""

import copy
import datetime
import functools
import hashlib
import itertools
import random
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nla_jax.autoencoder.text import encode, interpreted, well_formed
from nla_jax.autoencoder.tokens import special_tokens
from nla_jax.conversation.tokens import Piece
from nla_jax.errors import NLAError, first_line
from nla_jax.files import here

Messages = Sequence[Mapping[str, Any]]

# The day that templates see: the one that Llama 3's own fall back on. A prompt must be the same on every day.
_DATE = datetime.datetime(2024, 7, 26)
_DIRECTIVES = [*"aAbBcdeHIjmMpSuUVwWxXyYZzDFT", *(f"-{letter}" for letter in "deHIjmMS")]
_ANOTHER = (
  "give another with --config.prompts.chat_template=FILE.jinja (in Python: nla_jax.load(…, "
  "chat_template=…))"
)
# Digits have no case, are no blanks and no control characters, so templates that change those leave them alone.
ASKED, ANSWERED = "7302946158", "4096127835"
_ENOUGH = 12  # characters of an answer's end by which it is known


class TemplateError(NLAError):
  """A chat template that cannot serve; `reason` has its own words."""

  def __init__(self, reason: str):
    self.reason = reason
    super().__init__(f"the model's chat template {reason}; {_ANOTHER}")


def with_chat_template(tokenizer, given: str):
  """The tokenizer with another chat template; the one that is given stays as it is.

  Args:
    tokenizer: a fast tokenizer.
    given: a file with a template, or the name of one of the tokenizer's own; empty for the tokenizer as it is.

  Raises:
    NLAError: there is no such file or name, or the file is no text.
  """
  if not given:
    return tokenizer
  named = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
  text = named.get(given)
  if text is None:
    text = _read_template(given, named)

  changed = copy.copy(tokenizer)
  changed.chat_template = text
  return changed


def _read_template(given: str, named: Mapping[str, str]) -> str:
  """What a file with a template holds."""
  try:
    return Path(here(given)).read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError, RuntimeError, ValueError) as error:
    known = f" nor one of the tokenizer's own ({', '.join(sorted(named))})" if named else ""
    reason = getattr(error, "strerror", None) or error
    raise NLAError(
      f"the chat template {given!r} is no file that can be read ({reason}){known}: check the path"
    ) from error


def chosen_template(tokenizer) -> str:
  """The text of the template that is used.

  Raises:
    NLAError: there is none, or there are several and none of them is the default.
  """
  found = tokenizer.chat_template
  if found is None:
    raise NLAError(
      f"this tokenizer has no chat template, which the AV's prompt needs; use an instruction-tuned model, or {_ANOTHER}"
    )
  if isinstance(found, dict):
    if "default" not in found:
      names = ", ".join(map(str, found)) or "nothing"
      raise TemplateError(f"has none that is called default among those that it names: {names}")
    found = found["default"]
  if not isinstance(found, str):
    raise TemplateError(f"is {found!r}, which is no text")
  return found


def template_hash(tokenizer) -> str:
  """sha256 (hex) of the template that is used."""
  return hashlib.sha256(chosen_template(tokenizer).encode(errors="surrogatepass")).hexdigest()


def written(tokenizer, messages: Messages, *, reply: bool = False, **options) -> str:
  """A conversation as the tokenizer's chat template writes it.

  Contents are given as texts, or as lists of parts where the template wants them so. The date is always the same.

  Args:
    tokenizer: with a chat template.
    messages: {"role", "content"} of each.
    reply: whether the assistant's next turn is begun.
    options: further ones of transformers' `apply_chat_template`, such as `continue_final_message`.

  Raises:
    NLAError: the template raises, or writes none of the messages' words; with its own words, in one line.
  """
  found = unchecked(tokenizer, messages, reply=reply, **options)

  for role in ("user", "assistant"):
    said = [one["content"] for one in messages if one["role"] == role]
    if not _keeps(found, said, whole=role == "user"):
      shown = next(content for content in said if content.strip())
      raise TemplateError(
        f"drops or changes the words that it is given of the {role}, such as {shown[:40]!r}"
      )
  return found


def unchecked(tokenizer, messages: Messages, *, reply: bool = False, **options) -> str:
  """As `written`, of messages whose words the template may leave out."""
  template = _dated(chosen_template(tokenizer))
  formed = _formed(messages, _roles_of_parts(tokenizer, template))
  return _run(tokenizer, template, formed, reply, **options)


def _run(
  tokenizer, template: str, messages: Sequence[Mapping[str, Any]], reply: bool, **options
) -> str:
  """What a template makes of messages, the same at every time. Raises TemplateError with its own words."""
  # jinja2 has a filter that draws: a prompt that was drawn would be another in every process.
  drawing = random.getstate()
  random.seed(0)
  try:
    found = tokenizer.apply_chat_template(
      [dict(one) for one in messages],
      chat_template=template,
      tokenize=False,
      add_generation_prompt=reply,
      **options,
    )
    found.encode()  # half of a surrogate pair is in no vocabulary
    return found
  # jinja2's errors and Python's: a template can raise whatever its makers' program can.
  except Exception as error:
    raise TemplateError(f"refuses what it is given: {first_line(error)[:200]}") from error
  finally:
    random.setstate(drawing)


def _formed(messages: Messages, of_parts: Collection[str]) -> list[dict[str, Any]]:
  """The messages, the contents of some roles as lists of one part."""

  def content(one: Mapping[str, Any]) -> str | list[dict[str, str]]:
    text = one["content"]
    return [{"type": "text", "text": text}] if one["role"] in of_parts else text

  return [{**one, "content": content(one)} for one in messages]


@functools.lru_cache(maxsize=16)
def _roles_of_parts(tokenizer, template: str) -> frozenset[str]:
  """The roles whose contents a template writes where they are lists of parts, and not where they are texts."""
  user = {"role": "user", "content": ASKED}
  others = {role: {"role": role, "content": ANSWERED} for role in ("system", "assistant")}

  # 1. The user's, who speaks alone, or after a system's message where the template asks for one.
  found = frozenset()
  alone, after = [user], [others["system"], user]
  for form in ((), ("user",), ("system",), ("user", "system")):
    if any(_writes(tokenizer, template, one, form, ASKED) for one in (alone, after)):
      found = frozenset({"user"} & set(form))
      break

  # 2. Of the others each beside the user.
  for role, conversation in (
    ("system", after),
    ("assistant", [user, others["assistant"]]),
  ):
    plain, parts = (
      _writes(tokenizer, template, conversation, form, ANSWERED)
      for form in (found - {role}, found | {role})
    )
    if parts and not plain:
      found |= {role}
  return found


def _writes(
  tokenizer, template: str, messages: Messages, of_parts: Collection[str], words: str
) -> bool:
  """Whether a template writes `words`, and not the list that they are in."""
  try:
    found = _run(tokenizer, template, _formed(messages, of_parts), reply=False)
  except TemplateError:  # said where it is given the real messages
    return False
  return words in found and not re.search(rf"""text['"]\s*:\s*['"]{words}""", found)


def _keeps(found: str, contents: Sequence[str], *, whole: bool) -> bool:
  """Whether a template wrote at least one of some contents; it may trim them and write them in another case.

  Not all: some leave out what an assistant thought earlier. Of an answer the end is enough, since what it thought
  stands before it.
  """
  squeezed = [text for one in contents if (text := _squeezed(one))]
  written_here = _squeezed(found)
  return not squeezed or any(
    (text if whole else text[-_ENOUGH:]) in written_here for text in squeezed
  )


def _squeezed(text: str) -> str:
  """A text without blanks, control characters and case."""
  return "".join(char for char in text.casefold() if char.isprintable() and not char.isspace())


def _dated(template: str) -> str:
  """A template whose `strftime_now` gives a fixed date."""
  if "strftime_now" not in template:
    return template

  # transformers offers no way to give it a clock, and what a template defines itself comes before what it is given.
  chain = "".join(f"|replace('%{one}', '{_DATE.strftime('%' + one)}')" for one in _DIRECTIVES)
  macro = (
    f"{{% macro strftime_now(format) %}}{{{{ format{chain}|replace('%%', '%') }}}}{{% endmacro %}}"
  )
  # The line's end is eaten, as after every block: the template begins at the beginning of a line.
  return f"{macro}\n{template}"


def render(
  tokenizer, messages: Messages, *, reply: bool = False, at_most: int | None = None
) -> list[int]:
  """Token ids of a conversation, as the tokenizer's chat template writes it.

  The template writes the BOS where there is one. Special-token strings inside the messages stay plain text.

  Args:
    tokenizer: with a chat template.
    messages: {"role", "content"} of each.
    reply: whether the assistant's next turn is begun.
    at_most: ids that are wanted, from the first; None for all.

  Raises:
    NLAError: as `written`.
  """
  ids = []
  for piece in pieces(tokenizer, messages, reply=reply):
    left = None if at_most is None else at_most - len(ids)
    if left == 0:
      break
    read = encode if piece.literal else interpreted
    ids += read(tokenizer, piece.text, at_most=left)
  return ids


def pieces(tokenizer, messages: Messages, *, reply: bool = False, **options) -> list[Piece]:
  """A conversation as the chat template writes it, in pieces: what messages quote of special tokens is literal.

  Args:
    tokenizer: with a chat template.
    messages: {"role", "content", …} of each.
    reply: whether the assistant's next turn is begun.
    options: as of `written`.

  Raises:
    NLAError: as `written`.
  """
  for one in messages:
    well_formed(one["content"], f"what the {one['role']} says")
  strings = sorted(special_tokens(tokenizer).values(), key=len, reverse=True)
  found = [text for text in strings if any(text in one["content"] for one in messages)]
  if not found:
    return [Piece(written(tokenizer, messages, reply=reply, **options))]

  # A fence on either side of each such string. Digits that are nowhere in the messages; see `ASKED`.
  contents = "".join(one["content"] for one in messages)
  fence = next(str(n) for n in itertools.count(8201746395) if str(n) not in contents)
  inside = re.compile(f"({'|'.join(map(re.escape, found))})")
  fenced = [
    {**one, "content": inside.sub(rf"{fence}\g<1>{fence}", one["content"])} for one in messages
  ]
  parts = written(tokenizer, fenced, reply=reply, **options).split(fence)
  if len(parts) % 2 == 0:
    raise TemplateError(f"cuts a message apart that holds {found[0]!r}")
  # A special token parts a text, so what stands on either side of one is tokenised as it would be beside it.
  return [Piece(part, literal=i % 2 == 1) for i, part in enumerate(parts)]
