"""The teacher that is a language model: it is shown the text before a token and asked what matters for the next.

What it is asked is data (`prompts/features.txt`, or a file of the user's), after the paper's section on the warm start:
features ordered by what matters next, the last about the text's very end.
"""

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from nla_jax import files
from nla_jax.autoencoder.prompts import TAG, parse_explanation
from nla_jax.autoencoder.text import decode, encode
from nla_jax.data.store.documents import StoredDocument
from nla_jax.errors import NLAError
from nla_jax.progress import say
from nla_jax.providers.request import Request

FIELD = "{text}"
# Called with requests; gives their answers, None where there is none.
Answering = Callable[[Sequence[Request]], list[str | None]]


def read_prompt(path: str) -> str:
  """What the teacher is asked, with the field {text}; the prompt that comes with the package where `path` is empty.

  Raises:
    NLAError: there is no such file, or it has no field.
  """
  if not path:
    place = resources.files("nla_jax.data.teachers") / "prompts" / "features.txt"
    return place.read_text(encoding="utf-8")

  found = files.expect_file(path, "the teacher's prompt", "check --config.teacher.prompt")
  try:
    text = Path(found).read_text(encoding="utf-8")
  except UnicodeDecodeError as error:
    raise NLAError(f"the teacher's prompt {path} is not UTF-8 text: {error}") from None
  if FIELD not in text:
    raise NLAError(
      f"the teacher's prompt {path} has no {FIELD}: write it where the text is to stand"
    )
  return text


def requests_of(
  tokenizer, contexts: Sequence[Sequence[int]], prompt: str, settings
) -> list[Request]:
  """The question about each context.

  Args:
    tokenizer: the target's.
    contexts: token ids up to and including each position.
    prompt: with the field {text}.
    settings: the config's `teacher`; the last `context_tokens` of a context are shown.
  """
  shown = [decode(tokenizer, ids[-settings.context_tokens :]) for ids in contexts]
  return [
    # Replaced, not formatted: braces are the text's own.
    Request(
      prompt.replace(FIELD, text),
      max_tokens=settings.answer_tokens,
      temperature=settings.temperature,
    )
    for text in shown
  ]


def explanation_of(answer: str | None, tokenizer, max_tokens: int) -> str | None:
  """The explanation in a teacher's answer, a paragraph a feature; None where there is none that fits.

  Features before the last are left out from the least important on, until the text fits: the last one is about the
  text's end.

  Args:
    answer: of the model.
    tokenizer: the target's.
    max_tokens: of the explanation.
  """
  found = parse_explanation(answer or "")
  if found is None:
    return None
  lines = [line.strip().lstrip("-*•0123456789.) ").strip() for line in found.splitlines()]
  features = [TAG.sub(" ", line).strip() for line in lines if line]
  features = [line for line in features if line]

  while features:
    text = "\n\n".join(features)
    if len(encode(tokenizer, text)) <= max_tokens:
      return text
    del features[-2 if len(features) > 1 else -1]
  return None


def explain(
  documents: Sequence[StoredDocument],
  places: Sequence[tuple[int, int]],
  tokenizer,
  settings,
  answering: Answering,
) -> dict[int, str]:
  """{row: explanation} of those rows that the teacher explained.

  Args:
    documents: of the store.
    places: (document, position) of each row.
    tokenizer: the target's.
    settings: the config's `teacher`.
    answering: asks the model.

  Raises:
    NLAError: it explained none, or what `answering` raises.
  """
  prompt = read_prompt(settings.prompt)
  contexts = [documents[i].tokens[: position + 1] for i, position in places]
  answers = answering(requests_of(tokenizer, contexts, prompt, settings))

  found = {}
  for row, answer in enumerate(answers):
    text = explanation_of(answer, tokenizer, settings.max_tokens)
    if text is not None:
      found[row] = text
  silent = sum(answer is None for answer in answers)
  unfit = len(answers) - len(found) - silent
  if not found:
    example = next((answer for answer in answers if answer is not None), None)
    raise NLAError(
      f"the teacher explained none of {len(answers)} rows: {silent} got no answer, {unfit} hold no <explanation> of at "
      f"most {settings.max_tokens} tokens; the first answer begins {str(example)[:60]!r}. Try another "
      "--config.teacher.model, or raise --config.teacher.max_tokens"
    )
  if silent or unfit:
    say(
      f"teach: {len(found):,} of {len(answers):,} rows are explained; {silent:,} got no answer, {unfit:,} hold no "
      f"explanation of at most {settings.max_tokens} tokens. The others are left out"
    )
  return found
