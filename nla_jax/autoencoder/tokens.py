"""Which tokens stand for no words of a text, and what a tokenizer must not do with texts."""

from collections.abc import Iterable, Sequence

from nla_jax.autoencoder.text import bracketed, encode
from nla_jax.errors import NLAError


def special_tokens(tokenizer) -> dict[int, str]:
  """{id: string} of the tokens that stand for no words of a text: those that are flagged, and those that look so."""
  return flagged_tokens(tokenizer) | bracketed(tokenizer)


def flagged_tokens(tokenizer) -> dict[int, str]:
  """{id: string} of the tokens that a tokenizer's files call special."""
  named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))

  # A model need not name the one that begins a turn ("<|im_start|>") among its BOS, EOS and the like.
  added = tokenizer.added_tokens_decoder.items()
  return named | {token: str(content) for token, content in added if content.special}


def refuse_appended(tokenizer) -> None:
  """Raises NLAError where the tokenizer puts tokens behind every text, where a reader of its last token would look."""
  plain = encode(tokenizer, "a b")
  whole = encode(tokenizer, "a b", special=True)
  if whole[-len(plain) :] == plain:
    return

  place = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), len(whole))
  behind = whole[place + len(plain) :] or whole[-1:]
  raise NLAError(
    f"the tokenizer puts {tokenizer.decode(behind)!r} behind every text, and the AR and the target read the last token "
    "of a text: set add_eos_token to false in tokenizer_config.json, or take it out of the post_processor in "
    "tokenizer.json"
  )


def refuse_beyond(ids: Iterable[int], rows: int, what: str) -> None:
  """Raises NLAError where ids are beyond an embedding, which would read its last row for them without a word.

  Args:
    ids: that are looked up.
    rows: of the embedding.
    what: whose ids they are, for the message.
  """
  beyond = sorted({int(token) for token in ids if token >= rows})
  if beyond:
    shown = ", ".join(map(str, beyond[:3])) + (", …" if len(beyond) > 3 else "")
    raise NLAError(
      f"{what} holds {len(beyond)} token id(s) beyond the model's embedding of {rows} rows (id {shown}): take the "
      "tokenizer that belongs to the model"
    )


def refuse_longer(ids: Sequence[int], limit: int) -> None:
  """Raises NLAError where a text has more tokens than a model has learned positions: its states there mean nothing."""
  if len(ids) <= limit:
    return
  # Of an endless text no more tokens were made than show that it is too long.
  counted = f"more than {limit}" if len(ids) == limit + 1 else len(ids)
  raise NLAError(
    f"this text takes {counted} tokens and the model was made for {limit}: give a shorter one, which ends where you "
    "want to read"
  )


def check_vocabulary(tokenizer, rows: int) -> None:
  """Raises NLAError where a text can have an id beyond an embedding of `rows` rows.

  A special token is never read in a text, so one that has no row is no fault as long as no prompt holds it: Gemma 3's
  smallest model has none for its token of an image.
  """
  special = special_tokens(tokenizer)
  ids = (token for token in tokenizer.get_vocab().values() if token not in special)
  beyond = [token for token in ids if token >= rows]
  if beyond:
    raise NLAError(
      f"the tokenizer has {len(tokenizer)} tokens, the model's embedding {rows} rows: {len(beyond)} id(s) from "
      f"{min(beyond)} ({tokenizer.decode([min(beyond)])!r}) on have no row; take the tokenizer that belongs to the "
      "model"
    )
