"""Many questions to one model: each asked once, several at a time, never for more money than allowed.

1. What the journal holds is not asked again.
2. The rest is priced before the first call: at the worst, every answer is as long as it may be.
3. Requests go out while what is spent, and what is under way at its worst, stays below the ceiling.
4. Each answer is in the journal before it is used.
"""

import concurrent.futures
import time
from collections.abc import Sequence
from typing import NamedTuple

from nla_jax.errors import NLAError
from nla_jax.progress import Progress, say
from nla_jax.providers.journal import Journal
from nla_jax.providers.prices import BATCH_DISCOUNT, Price
from nla_jax.providers.request import Answer, GaveUpError, Provider, Request

_BYTES_A_TOKEN = 2.0  # fewer than of any text that is not random, so that an estimate is too high
_OVERHEAD = 16  # tokens that a chat template adds
_POLL_SECONDS = 30.0
_GIVEN_UP_SHARE = 0.2  # of the first requests: then something is wrong with all of them
_FIRST = 20


class Terms(NamedTuple):
  """How a model may be asked.

  Attributes:
    price: of its tokens.
    ceiling: US dollars that may be spent in all, over all runs with this journal; None is no bound.
    parallel: requests under way at once.
    batch: by the provider's batch endpoint, at half the price and within a day.
    option: what raises the ceiling, for the message.
    poll_seconds: between two looks at a batch.
  """

  price: Price
  ceiling: float | None = None
  parallel: int = 8
  batch: bool = False
  option: str = "the ceiling"
  poll_seconds: float = _POLL_SECONDS

  def worst(self, request: Request) -> float:
    """US dollars that a request may cost."""
    text = request.system + request.prompt
    asked = len(text.encode(errors="replace")) / _BYTES_A_TOKEN + _OVERHEAD
    return self.price.of(asked, request.max_tokens) * self.discount

  def paid(self, answer: Answer) -> float:
    """US dollars that an answer cost."""
    return self.price.of(answer.input_tokens, answer.output_tokens) * self.discount

  @property
  def discount(self) -> float:
    """What the price is multiplied with."""
    return BATCH_DISCOUNT if self.batch else 1.0


def complete(
  provider: Provider, requests: Sequence[Request], journal: Journal, terms: Terms, name: str
) -> list[str | None]:
  """Answers in the order of the requests; None where the model gave none after all tries.

  Args:
    provider: whom to ask.
    requests: questions; equal ones are asked once.
    journal: what was asked before; new answers are added.
    terms: price, ceiling and how many at once.
    name: of the stage, shown beside the bar.

  Raises:
    NLAError: the key, the model or the address is wrong; or the ceiling is reached. What was answered is kept.
  """
  # 1. What is left to ask.
  digests = [request.digest(provider.model) for request in requests]
  new = {
    digest: request
    for digest, request in zip(digests, requests, strict=True)
    if journal.find(digest) is None
  }

  # 2. Told before the first call.
  if new:
    _say_price(provider, new, journal, terms, name)
    ask = _ask_in_batch if terms.batch else _ask_in_parallel
    ask(provider, new, journal, terms, name)

  # 3. What came of it.
  spent = journal.spent
  say(
    f"{name}: {provider.model} answered {spent.requests:,} requests, {spent.input_tokens:,} tokens in and "
    f"{spent.output_tokens:,} out, ${spent.dollars:.2f}"
  )
  found = [journal.find(digest) for digest in digests]
  return [None if answer is None else answer.text for answer in found]


def _say_price(
  provider: Provider, new: dict[str, Request], journal: Journal, terms: Terms, name: str
) -> None:
  most, spent = sum(map(terms.worst, new.values())), journal.spent.dollars
  bound = "no ceiling is set" if terms.ceiling is None else f"the ceiling is ${terms.ceiling:.2f}"
  say(
    f"{name}: {len(new):,} requests to {provider.model}, at most ${most:.2f}; ${spent:.2f} is spent, {bound}"
  )


class _Purse:
  """What may still be spent."""

  def __init__(self, journal: Journal, terms: Terms, name: str, total: int):
    self._journal, self._terms, self._name, self._total = journal, terms, name, total
    self._under_way = 0.0

  def reserve(self, request: Request) -> float | None:
    """Takes a request's worst case out; None where it would be above the ceiling."""
    worst, ceiling = self._terms.worst(request), self._terms.ceiling
    if ceiling is not None and self._journal.spent.dollars + self._under_way + worst > ceiling:
      return None
    self._under_way += worst
    return worst

  def give_back(self, reserved: float) -> None:
    """A request is over; what it cost is in the journal."""
    self._under_way -= reserved

  def empty(self, left: int) -> NLAError:
    """What to say when the ceiling stops the rest."""
    spent = self._journal.spent
    return NLAError(
      f"{self._name}: the ceiling of ${self._terms.ceiling:.2f} is reached: ${spent.dollars:.4f} is spent, {left:,} of "
      f"{self._total:,} requests are not asked; what was answered is kept. Raise {self._terms.option} and run the same "
      "command again"
    )


def _ask_in_parallel(
  provider: Provider, new: dict[str, Request], journal: Journal, terms: Terms, name: str
) -> None:
  """Asks one request after the other, several at a time; all that are under way are waited for, whatever happens."""
  purse, progress = _Purse(journal, terms, name, len(new)), Progress(name, len(new), "request")
  waiting, under_way, tries = list(new.items())[::-1], {}, _Tries(provider, name)
  refused = None

  with concurrent.futures.ThreadPoolExecutor(terms.parallel) as pool:
    while waiting or under_way:
      # 1. As many as may be, and can be paid.
      while waiting and refused is None and len(under_way) < terms.parallel:
        reserved = purse.reserve(waiting[-1][1])
        if reserved is None:
          break
        digest, request = waiting.pop()
        under_way[pool.submit(provider.ask, request)] = digest, reserved
      if not under_way:
        break

      # 2. Answers as they come, each kept before the next is looked at.
      done, _ = concurrent.futures.wait(under_way, return_when=concurrent.futures.FIRST_COMPLETED)
      for future in done:
        digest, reserved = under_way.pop(future)
        try:
          answer = future.result()
          journal.add(digest, answer, terms.paid(answer))
          refused = tries.count(given_up=False) or refused
        except GaveUpError as error:
          refused = tries.count(given_up=True, reason=str(error)) or refused
        except NLAError as error:
          refused = error
        purse.give_back(reserved)
        progress.advance()

  progress.close()
  tries.say()
  if refused is not None:
    raise refused
  if waiting:
    raise purse.empty(len(waiting))


class _Tries:
  """Counts requests that got no answer: where most of the first do not, the rest is not tried."""

  def __init__(self, provider: Provider, name: str):
    self._provider, self._name, self._made, self._lost, self._reason = provider, name, 0, 0, ""

  def count(self, given_up: bool, reason: str = "") -> NLAError | None:
    """Counts one; returns what stops the rest, or None."""
    self._made += 1
    self._lost += given_up
    self._reason = reason or self._reason
    if self._lost < _FIRST * _GIVEN_UP_SHARE or self._lost < self._made * _GIVEN_UP_SHARE:
      return None
    return NLAError(
      f"{self._name}: {self._lost} of {self._made} requests to {self._provider.model} got no answer ({self._reason}); "
      "what was answered is kept: run the same command again later"
    )

  def say(self) -> None:
    """Says how many were given up."""
    if self._lost:
      say(
        f"{self._name}: {self._lost} of {self._made} requests got no answer ({self._reason}); the same command asks "
        "them again"
      )


def _ask_in_batch(
  provider: Provider, new: dict[str, Request], journal: Journal, terms: Terms, name: str
) -> None:
  """Sends what no batch under way holds, as one batch, and waits for all."""
  # 1. A batch of a run that was stopped is waited for, not sent again.
  known = {digest for digests in journal.batches.values() for digest in digests}
  unsent = [(digest, request) for digest, request in new.items() if digest not in known]
  if unsent:
    purse = _Purse(journal, terms, name, len(new))
    if any(purse.reserve(request) is None for _, request in unsent):
      raise purse.empty(len(unsent))
    journal.begin_batch(provider.send_batch(unsent), [digest for digest, _ in unsent])

  # 2. Until the provider is done with each.
  for batch, digests in journal.batches.items():
    say(f"{name}: waiting for batch {batch} of {len(digests):,} requests")
    while not (found := provider.poll_batch(batch)).done:
      time.sleep(terms.poll_seconds)
    for digest, answer in found.answers.items():
      if journal.find(digest) is None:
        journal.add(digest, answer, terms.paid(answer))
    journal.end_batch(batch)
