"""Whether the AV and the AR can learn from a teacher's texts: told before any training, with a row and the count."""

from collections.abc import Callable, Mapping

import numpy as np

from nla_jax.autoencoder.pair import Pair
from nla_jax.autoencoder.prompts import parse_explanation, wrap_explanation
from nla_jax.data.store.store import Store
from nla_jax.errors import NLAError


def check_texts(texts: Mapping[int, str], pair: Pair, store: Store) -> None:
  """Refuses texts of which a model would learn another text, or none.

  1. The text comes back whole out of the tags that the AV is taught to put around it.
  2. The AV's answer with it ends within the cap on answers.
  3. The AR's input holds it: one that it cannot hold would be read as an empty explanation.

  Args:
    texts: {row of the store: the teacher's text}.
    pair: the AV and AR that will learn, as `rl.max_new_tokens` and the prompts make them.
    store: whose activations are explained.

  Raises:
    NLAError: a text fails; the message counts those that do and names the first.
  """
  prompts, tokenizer, cap = pair.prompts, pair.tokenizer, pair.max_new_tokens

  def comes_back(text: str) -> bool:
    return parse_explanation(wrap_explanation(text)) == text.strip()

  def can_end(text: str) -> bool:
    return len(prompts.answer_ids(tokenizer, text)) <= cap

  def can_be_read(text: str) -> bool:
    return bool(pair.encode([text]).fits[0])

  _refuse(
    texts,
    comes_back,
    store,
    "do not come back whole out of the tags <explanation> and </explanation>",
    "take the tags out of them",
  )
  remedy = "shorten them or raise --config.rl.max_new_tokens"
  too_long = f"are longer than config.rl.max_new_tokens={cap} lets the AV write"
  _refuse(texts, can_end, store, too_long, remedy)
  holds = f"do not fit the AR's rows of {pair.ar_tokens} tokens"
  _refuse(texts, can_be_read, store, holds, remedy)


def _refuse(
  texts: Mapping[int, str], serves: Callable[[str], bool], store: Store, what: str, remedy: str
) -> None:
  """Raises NLAError where texts do not serve."""
  bad = [row for row, text in texts.items() if not serves(text)]
  if not bad:
    return

  # By document and position: that is how a teacher's file names its rows.
  place = np.array(bad[:1])
  document = store.documents[int(store.read("document", place)[0])].id
  position = int(store.read("position", place)[0])
  raise NLAError(
    f"{len(bad)} of the teacher's {len(texts)} explanations {what}; the first is of position {position} of document "
    f"{document!r}: {texts[bad[0]][:60]!r}; {remedy}"
  )
