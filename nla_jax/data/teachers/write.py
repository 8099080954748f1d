"""The teacher's text for the rows of an activation store: read out, read from a file, or asked of a language model."""

from nla_jax.autoencoder.text import decode
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.store import Store
from nla_jax.data.teachers import file, model, readout
from nla_jax.progress import track


def teach(
  store: Store, tokenizer, settings, answering: model.Answering | None = None
) -> dict[int, str]:
  """Returns {row: explanation} of every row; of those that it explained where the teacher is a language model.

  Args:
    store: a finished activation store.
    tokenizer: the target's.
    settings: the config's `teacher`.
    answering: asks the language model; None where its `provider` is "readout" or "file".

  Raises:
    NLAError: the teacher's file cannot be read or does not explain every row; or `readout` is asked of a store
      without the target's next tokens.
  """
  document = store.read("document", slice(None))
  position = store.read("position", slice(None))
  documents = [store.documents[i] for i in range(len(store.documents))]

  if settings.provider == "file":
    keys = [(documents[i].id, int(p)) for i, p in zip(document, position)]
    texts = file.match_rows(file.read_teacher_file(settings.path), keys, settings.path)
    return dict(enumerate(texts))
  if answering is not None:
    places = list(zip(document.tolist(), position.tolist(), strict=True))
    return model.explain(documents, places, tokenizer, settings, answering)

  # The target's own forward named the likeliest next tokens; without them there is nothing to read out.
  next_tokens = store.read("next_tokens", slice(None))
  topics = readout.TopicWords(text_of_groups(documents, tokenizer))

  texts = []
  rows = zip(document, position, next_tokens, strict=True)
  for i, p, likeliest in track(rows, "teach", "row", total=len(store)):
    context = documents[i].tokens[: p + 1]
    texts.append(readout.readout(tokenizer, context, likeliest, topics, settings))
  return dict(enumerate(texts))


def text_of_groups(documents: list[StoredDocument], tokenizer) -> list[str]:
  """The text of each group (an article), in the order in which groups first appear."""
  groups: dict[str, list[str]] = {}
  for document in documents:
    text = decode(tokenizer, document.tokens)
    groups.setdefault(document.group, []).append(text)

  return ["\n".join(texts) for texts in groups.values()]
