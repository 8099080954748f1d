"""Many at once: batches, places, clients that leave, and deadlines."""

import asyncio
import http.client
import json
import threading
import time

import pytest
from support.serving import frames, posted, served, until

from nla_jax.serving.device import Partial, Work

UNITS = [[0.0] * i + [1.0] + [0.0] * (7 - i) for i in range(1, 8)]


def describe(units=UNITS[:1], **more):
  return {"activations": units, "temperature": 0, **more}


def hanging(port: int, body) -> http.client.HTTPConnection:
  """A connection whose answer nobody waits for."""
  connection = http.client.HTTPConnection("127.0.0.1", port)
  headers = {"Content-Type": "application/json"}
  connection.request("POST", "/describe", json.dumps(body), headers)
  return connection


class Asking:
  """Requests that run in threads; `answers` has (status, body) of each that has come."""

  def __init__(self, port):
    self.port, self.answers, self.threads = port, [], []

  def ask(self, body, path="/describe"):
    thread = threading.Thread(target=self._ask, args=(path, body), daemon=True)
    thread.start()
    self.threads.append(thread)

  def _ask(self, path, body):
    response = posted(self.port, path, body)
    self.answers.append((response.status, response.read().decode()))

  def wait(self):
    for thread in self.threads:
      thread.join(20)
      assert not thread.is_alive(), "a request was lost"
    return self.answers


def test_requests_of_one_kind_share_a_batch_and_others_do_not(make_service):
  service = make_service()
  reader = service.reader
  reader.gate.clear()
  with served(service) as port:
    asking = Asking(port)
    asking.ask(describe())
    until(reader.entered.is_set)

    # While the first batch is computed, three of one kind and one of another come in.
    for body in (describe(UNITS[1:3]), describe(UNITS[3:4]), describe(UNITS[4:5])):
      asking.ask(body)
    until(lambda: service.inside == 4)
    asking.ask(describe(temperature=1.0))
    until(lambda: service.inside == 5)
    reader.gate.set()
    assert [status for status, _ in asking.wait()] == [200] * 5
  sizes = [len(rows) for rows, _ in reader.batches]
  assert sorted(sizes) == [1, 1, 4] and sizes[0] == 1


def test_a_small_request_does_not_wait_for_a_large_one(make_service):
  service = make_service(rows=4)
  service.reader.gate.clear()
  with served(service) as port:
    asking = Asking(port)
    asking.ask(describe())
    until(service.reader.entered.is_set)
    asking.ask(describe(UNITS * 3))
    until(lambda: service.inside == 2)
    asking.ask(describe(UNITS[3:4]))
    until(lambda: service.device.waiting == 2)
    service.reader.gate.set()
    assert [status for status, _ in asking.wait()] == [200] * 3
  # The row of the third request is in the batch after the first one, beside three of the second's.
  second = [int(row.vector.argmax()) for row in service.reader.batches[1][0]]
  assert second.count(4) == 1 and len(second) == 4
  assert sum(len(rows) for rows, _ in service.reader.batches) == 1 + 21 + 1


def test_the_answer_of_each_request_is_its_own(make_service):
  service = make_service(concurrent=32)
  with served(service) as port:
    asking = Asking(port)
    found = {}
    for i in range(20):
      asking.ask(describe([UNITS[i % 7], UNITS[(i + 1) % 7]], stream=i % 2 == 0))
    for status, body in asking.wait():
      assert status == 200
      found[body] = found.get(body, 0) + 1
  wanted = {f"unit {i % 7 + 1} of stream 0" for i in range(20)}
  assert {text for body in found for text in wanted if text in body} == wanted


def test_one_request_too_many_is_refused_at_once(make_service):
  service = make_service(concurrent=2)
  service.reader.gate.clear()
  with served(service) as port:
    asking = Asking(port)
    asking.ask(describe())
    asking.ask(describe(stream=True))
    until(lambda: service.inside == 2)

    begun = time.monotonic()
    response = posted(port, "/describe", describe())
    said = response.read()
    assert response.status == 429 and time.monotonic() - begun < 1
    assert b"all 2 places" in said and response.headers["retry-after"] == "1"
    # The status is answered all the same.
    connection = response.connection
    connection.request("GET", "/")
    assert connection.getresponse().status == 200

    service.reader.gate.set()
    assert [status for status, _ in asking.wait()] == [200, 200]
    until(lambda: service.inside == 0)
    assert posted(port, "/describe", describe()).status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place_and_the_device(make_service, stream):
  service = make_service(concurrent=1)
  service.reader.gate.clear()
  with served(service) as port:
    if stream:
      response = posted(port, "/describe", describe(stream=True))
      assert response.read1().startswith(b"data: ")
      connection = response.connection
      # The socket is shared by both, and hangs up with the second.
      response.close()
    else:
      connection = hanging(port, describe())
      until(service.reader.entered.is_set)
    connection.close()
    until(lambda: service.inside == 0)

    # The gate is still closed: the batch was given up, and the thread takes the next one.
    service.reader.entered.clear()
    asking = Asking(port)
    asking.ask(describe())
    until(service.reader.entered.is_set)
    service.reader.gate.set()
    assert [status for status, _ in asking.wait()] == [200]


def test_who_leaves_takes_nobody_along(make_service):
  service = make_service()
  reader = service.reader
  reader.gate.clear()
  with served(service) as port:
    asking = Asking(port)
    asking.ask(describe(temperature=2))
    until(reader.entered.is_set)
    # Two of one kind wait for their batch; when it has begun, one of them leaves.
    asking.ask(describe(UNITS[1:2]))
    until(lambda: service.device.waiting == 1)
    leaving = hanging(port, describe(UNITS[2:3]))
    until(lambda: service.device.waiting == 2)
    first, reader.gate = reader.gate, threading.Event()
    first.set()
    until(lambda: len(reader.batches) == 2)
    leaving.close()
    until(lambda: service.inside == 1)
    reader.gate.set()
    found = asking.wait()
  assert [status for status, _ in found] == [200, 200]
  assert [len(rows) for rows, _ in reader.batches] == [1, 2]


def test_an_answer_that_takes_too_long_is_given_up(make_service):
  service = make_service(request_seconds=0.3)
  service.reader.gate.clear()
  with served(service) as port:
    response = posted(port, "/describe", describe())
    assert response.status == 504 and b"took too long" in response.read()

    # A stream has begun with 200, so its last frame says it, and there is no [DONE].
    response = posted(port, "/describe", describe(stream=True))
    *_, last = frames(response.read().decode())
    assert last["status"] == 504 and "took too long" in last["error"]
    until(lambda: service.inside == 0)
    service.reader.gate.set()
    assert posted(port, "/describe", describe()).status == 200


def test_a_row_that_fails_fails_for_its_own_request_alone(make_service):
  service = make_service()
  reader, explained = service.reader, service.reader.explained
  reader.explained = lambda row: 1 / 0 if row.vector.argmax() == 3 else explained(row)
  reader.gate.clear()
  with served(service) as port:
    asking = Asking(port)
    asking.ask(describe(temperature=2))
    until(reader.entered.is_set)
    for unit in UNITS[1:4]:
      asking.ask(describe([unit]))
    asking.ask(describe(UNITS[2:3], stream=True))
    until(lambda: service.device.waiting == 4)
    reader.gate.set()
    found = sorted(asking.wait())
  assert [status for status, _ in found] == [200, 200, 200, 200, 500]
  [failed] = [body for status, body in found if status == 200 and "error" in body]
  assert frames(failed)[-1] == {"error": "the server failed; its log says more", "status": 500}


def test_a_reader_that_is_slow_keeps_only_the_newest_words(make_service):
  async def read() -> list:
    work = Work("a kind", ["a row"], watched=True)
    for i in range(1000):
      work.post(0, Partial(f"{i}"))
    work.post(0, "the result")
    await asyncio.sleep(0.05)
    return [found async for _, found in work.results()]

  assert asyncio.run(read()) == ["the result"]
