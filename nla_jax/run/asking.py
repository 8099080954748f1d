"""How a run asks language models: its config's `api`, with a journal in the stage's folder."""

import contextlib
from collections.abc import Iterator, Sequence

from nla_jax.bucket import Place
from nla_jax.data.teachers.model import Answering
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.local_provider import LocalModel
from nla_jax.parallel import distributed
from nla_jax.providers.client import Terms, complete
from nla_jax.providers.find import PROVIDERS, known_price, open_provider
from nla_jax.providers.journal import Journal
from nla_jax.providers.request import Request
from nla_jax.run.run import Run
from nla_jax.workdir import JOURNAL

LOCAL = "local"


def terms_of(config) -> Terms:
  """The terms of the config's `api` for its teacher. Raises NLAError where a price is not known."""
  api, teacher = config.api, config.teacher
  price = known_price(
    teacher.provider, teacher.model, api.url, tuple(api.price), "--config.api.price"
  )
  return Terms(
    price, api.ceiling, api.parallel, api.batch, "--config.api.ceiling", api.poll_seconds
  )


@contextlib.contextmanager
def answering(run: Run, folder: Place) -> Iterator[Answering | None]:
  """What asks the teacher of a run; None where it is no language model.

  Args:
    run: whose `teacher` and `api` say whom and how.
    folder: of the stage, for the journal.

  Raises:
    NLAError: the model is not there, or its price is not known.
  """
  teacher = run.config.teacher
  if teacher.provider not in (LOCAL, *PROVIDERS):
    yield None
    return
  if distributed.process()[1] > 1:
    raise NLAError(
      f"config.teacher.provider={teacher.provider} asks from one process: run `nla teach` alone first, then `nla run` "
      "with all"
    )

  journal = Journal(folder / JOURNAL)
  try:
    if teacher.provider == LOCAL:
      model = LocalModel(teacher.model, run.dtype)
      yield lambda requests: model.answer(requests, journal, "teach", run.config.seed)
      return
    provider, terms = (
      open_provider(teacher.provider, teacher.model, run.config.api.url),
      terms_of(run.config),
    )

    def ask(requests: Sequence[Request]) -> list[str | None]:
      return complete(provider, requests, journal, terms, "teach")

    yield ask
  finally:
    journal.close()
