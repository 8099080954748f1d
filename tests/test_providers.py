"""Asking language models of others: once, several at a time, within a ceiling, and on after a stop."""

import importlib.util

import pytest
from support.model_server import serving

from nla_jax.errors import NLAError
from nla_jax.providers.client import Terms, complete
from nla_jax.providers.find import known_price, open_provider
from nla_jax.providers.journal import Journal
from nla_jax.providers.prices import Price, price_of
from nla_jax.providers.request import Answer, Batch, Request

missing = [
  name for name in ("openai", "anthropic", "genai_prices") if not importlib.util.find_spec(name)
]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}")

PATHS = {"openai": "/v1", "anthropic": ""}
PRICE = Price(1000.0, 2000.0)


@pytest.fixture(params=list(PATHS))
def served(request, monkeypatch):
  """A server, and a function that makes a provider that asks it."""
  for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
    monkeypatch.setenv(key, "right")
  with serving() as (server, url):
    yield (
      server,
      lambda model="m": open_provider(request.param, model, url + PATHS[request.param]),
    )


def requests(n: int) -> list[Request]:
  return [Request(f"question number {i}", max_tokens=50) for i in range(n)]


def test_answers_come_in_the_order_of_the_requests_several_at_a_time(served, tmp_path):
  server, provider = served
  journal = Journal(tmp_path / "journal.jsonl")
  asked = [*requests(12), requests(1)[0]]
  texts = complete(provider(), asked, journal, Terms(PRICE, parallel=4), "test")
  assert ["question number 11"[-4:] in text for text in texts] == [i == 11 for i in range(13)]
  assert texts[0] == texts[-1] and len(server.answered) == 12  # equal questions are asked once
  assert 1 < server.most_at_once <= 4

  # The journal's count is the server's.
  spent = journal.spent
  assert (spent.requests, spent.input_tokens, spent.output_tokens) == (
    12,
    server.input_tokens,
    server.output_tokens,
  )
  assert spent.dollars == pytest.approx(PRICE.of(server.input_tokens, server.output_tokens))


def test_a_busy_server_is_asked_again(served, tmp_path):
  server, provider = served
  server.busy = 3
  texts = complete(
    provider(), requests(4), Journal(tmp_path / "j"), Terms(PRICE, parallel=2), "test"
  )
  assert all(texts) and server.busy == 0


def test_what_was_answered_is_not_paid_again(served, tmp_path):
  server, provider = served
  for n in (3, 5):
    journal = Journal(tmp_path / "j")
    complete(provider(), requests(n), journal, Terms(PRICE), "test")
    journal.close()
  assert len(server.answered) == 5 and Journal(tmp_path / "j").spent.requests == 5


def test_the_ceiling_is_never_passed_and_a_higher_one_goes_on(served, tmp_path):
  server, provider = served
  worst = Terms(PRICE).worst(requests(1)[0])
  ceiling = 2.5 * worst
  with pytest.raises(
    NLAError, match=r"the ceiling of .* is reached: .* raise the purse|Raise the purse"
  ) as error:
    complete(
      provider(),
      requests(40),
      Journal(tmp_path / "j"),
      Terms(PRICE, ceiling, parallel=8, option="the purse"),
      "test",
    )
  journal = Journal(tmp_path / "j")
  assert (
    0 < journal.spent.dollars <= ceiling and journal.spent.requests == len(server.answered) < 40
  )
  assert f"{40 - len(server.answered)} of 40 requests are not asked" in str(error.value)

  texts = complete(provider(), requests(40), journal, Terms(PRICE, 1e6), "test")
  assert all(texts) and len(server.answered) == 40


def test_a_request_that_gets_no_answer_is_none_and_is_asked_again_next_time(
  served, tmp_path, monkeypatch
):
  server, provider = served
  server.broken = "number 2"
  monkeypatch.setattr("nla_jax.providers.vendor.TRIES", 1)
  texts = complete(provider(), requests(5), Journal(tmp_path / "j"), Terms(PRICE), "test")
  assert [text is None for text in texts] == [False, False, True, False, False]

  server.broken = ""
  assert all(complete(provider(), requests(5), Journal(tmp_path / "j"), Terms(PRICE), "test"))
  assert len(server.answered) == 5


def test_where_most_fail_the_rest_is_not_tried(served, tmp_path, monkeypatch):
  server, provider = served
  server.broken = "question"
  monkeypatch.setattr("nla_jax.providers.vendor.TRIES", 0)
  with pytest.raises(NLAError, match=r"requests to m got no answer .*run the same command again"):
    complete(provider(), requests(200), Journal(tmp_path / "j"), Terms(PRICE, parallel=2), "test")
  assert server.answered == []


@pytest.mark.parametrize(
  ("wrong", "said"), [("key", "refuses the key in"), ("model", "has no model none")]
)
def test_a_wrong_key_or_model_is_one_line_and_stops_at_once(served, tmp_path, wrong, said):
  server, provider = served
  if wrong == "key":
    server.key = "another"
  asked = provider("none" if wrong == "model" else "m")
  with pytest.raises(NLAError, match=said) as error:
    complete(asked, requests(50), Journal(tmp_path / "j"), Terms(PRICE, parallel=2), "test")
  assert "\n" not in str(error.value) and server.answered == []


def test_a_server_that_is_not_there_is_said(tmp_path, monkeypatch):
  monkeypatch.setattr("nla_jax.providers.vendor.TRIES", 0)
  asked = open_provider("openai", "m", "http://127.0.0.1:9/v1")
  with pytest.raises(NLAError, match="got no answer"):
    complete(asked, requests(30), Journal(tmp_path / "j"), Terms(PRICE), "test")


def test_a_batch_is_polled_until_it_is_done_and_costs_half(served, tmp_path):
  server, provider = served
  server.unfinished = 2
  journal = Journal(tmp_path / "j")
  terms = Terms(PRICE, batch=True, poll_seconds=0.0)
  texts = complete(provider(), requests(4), journal, terms, "test")
  assert all(texts) and server.batches_begun == 1 and not journal.batches
  assert journal.spent.dollars == pytest.approx(
    PRICE.of(server.input_tokens, server.output_tokens) / 2
  )


def test_a_batch_of_a_run_that_was_stopped_is_waited_for_and_not_sent_again(served, tmp_path):
  server, provider = served
  journal, asked = Journal(tmp_path / "j"), provider()
  named = [(request.digest("m"), request) for request in requests(4)]
  # The process died between the batch's beginning and its end.
  journal.begin_batch(asked.send_batch(named), [digest for digest, _ in named])
  journal.close()

  terms = Terms(PRICE, batch=True, poll_seconds=0.0)
  assert all(complete(provider(), requests(4), Journal(tmp_path / "j"), terms, "test"))
  assert server.batches_begun == 1


def test_a_batch_beyond_the_ceiling_is_not_begun(served, tmp_path):
  server, provider = served
  terms = Terms(PRICE, 3 * Terms(PRICE, batch=True).worst(requests(1)[0]), batch=True)
  with pytest.raises(NLAError, match="the ceiling"):
    complete(provider(), requests(4), Journal(tmp_path / "j"), terms, "test")
  assert server.batches_begun == 0


def test_an_answer_is_on_the_disk_before_the_next_is_looked_at(tmp_path):
  """A provider that dies at its third request: two answers are kept."""

  class Dies:
    name, model = "openai", "m"
    asked = 0

    def ask(self, request):
      Dies.asked += 1
      if Dies.asked == 3:
        raise RuntimeError("the power went out")
      return Answer("x", 1, 1)

    def send_batch(self, requests) -> str:
      raise AssertionError

    def poll_batch(self, batch) -> Batch:
      raise AssertionError

  with pytest.raises(RuntimeError):
    complete(Dies(), requests(9), Journal(tmp_path / "j"), Terms(PRICE, parallel=1), "test")
  assert Journal(tmp_path / "j").spent.requests == 2


def test_a_price_that_is_not_known_must_be_given():
  with pytest.raises(NLAError, match=r"what nobody-knows of openai costs is not known.*--price"):
    price_of("openai", "nobody-knows", (), "--price")
  assert price_of("openai", "nobody-knows", (1, 2)) == Price(1.0, 2.0)
  assert known_price("openai", "nobody-knows", "http://127.0.0.1:1/v1") == Price(0.0, 0.0)
  known = price_of("anthropic", "claude-sonnet-4-5")
  assert known.of(1_000_000, 0) > 0 and known.output > known.input
  for wrong in ((1,), (1, 2, 3), (-1, 2), ("a", 1)):
    with pytest.raises(NLAError, match="is not \\(input, output\\)"):
      price_of("openai", "m", wrong, "--price")


def test_a_key_or_a_name_that_is_missing_is_said_before_anything_is_asked(monkeypatch):
  for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
    monkeypatch.delenv(name, raising=False)
  for name, key in (("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")):
    with pytest.raises(NLAError, match=f"{key} is not set"):
      open_provider(name, "m")
    with pytest.raises(NLAError, match="no model of"):
      open_provider(name, "")
  with pytest.raises(NLAError, match="there is no provider 'gemini'"):
    open_provider("gemini", "m")
