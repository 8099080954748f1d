"""A language model of our own as a teacher or a judge: any checkpoint or GGUF that is read here, without a server."""

from collections.abc import Sequence

import jax.numpy as jnp

from nla_jax.autoencoder import chat
from nla_jax.autoencoder.text import decode
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.models.language_model import LanguageModel
from nla_jax.models.parameters import as_base
from nla_jax.progress import Progress
from nla_jax.providers.journal import Journal
from nla_jax.providers.request import Answer, Request
from nla_jax.reading.complete import Drawing, Target, check_prompts, complete

_AT_ONCE = 64  # questions between two entries into the journal


class LocalModel:
  """A loaded language model that answers requests.

  Args:
    name: as for `config.model`.
    dtype: that products round their operands to.

  Raises:
    NLAError: there is no such model, or it has no chat template.
  """

  def __init__(self, name: str, dtype=jnp.float32):
    found = load_pretrained(name, dtype="bfloat16")
    self.name, self._tokenizer = name, found.tokenizer
    chat.chosen_template(found.tokenizer)
    end = found.tokenizer.eos_token_id
    stops = dict.fromkeys([*found.ends, *([] if end is None else [end])])
    model = LanguageModel(found.architecture, dtype)
    self._target = Target(model, {"base": as_base(found.params)}, tuple(stops))

  def answer(
    self, requests: Sequence[Request], journal: Journal, name: str, seed: int = 0
  ) -> list[str | None]:
    """Answers in the order of the requests; what the journal holds is not asked again.

    Args:
      requests: of one length and temperature.
      journal: of this model's answers.
      name: of the stage, shown beside the bar.
      seed: of the draws.

    Raises:
      NLAError: a question leads beyond the model's positions.
    """
    digests = [request.digest(self.name) for request in requests]
    new = {
      digest: request
      for digest, request in zip(digests, requests, strict=True)
      if journal.find(digest) is None
    }
    # Questions of like length share a batch, and with it its padding.
    asked = {digest: self._prompt(request) for digest, request in new.items()}
    order = sorted(asked, key=lambda digest: len(asked[digest]))
    for digest in order:
      check_prompts(self._target, [asked[digest]], new[digest].max_tokens)

    progress = Progress(name, len(order), "request")
    for start in range(0, len(order), _AT_ONCE):
      part = order[start : start + _AT_ONCE]
      first = new[part[0]]
      drawing = Drawing(
        max_new_tokens=first.max_tokens,
        greedy=first.temperature == 0,
        temperature=first.temperature or 1.0,
        seed=seed,
      )
      written = complete(self._target, [asked[digest] for digest in part], drawing).tokens
      for digest, (ids,) in zip(part, written, strict=True):
        journal.add(digest, Answer(decode(self._tokenizer, ids), len(asked[digest]), len(ids)), 0.0)
      progress.advance(len(part))

    progress.close()
    return [journal.find(digest).text for digest in digests]

  def _prompt(self, request: Request) -> list[int]:
    system = [{"role": "system", "content": request.system}] if request.system else []
    messages = [*system, {"role": "user", "content": request.prompt}]
    try:
      return chat.render(self._tokenizer, messages, reply=True)
    except NLAError as error:
      raise NLAError(f"{self.name} cannot be asked: {error}") from error
