"""Bad requests: a clear status and one sentence each, and the server stays up."""

import json

import numpy as np
import pytest
from support import wire
from support.serving import TestClient, posted, served

from nla_jax.errors import NLAError
from nla_jax.serving.limits import Limits
from nla_jax.serving.server import application

UNIT = [1.0, *[0.0] * 7]
JSON = {"Content-Type": "application/json"}


def sentence(response, status: int) -> str:
  """The one sentence of a refusal."""
  assert response.status_code == status, response.text
  found = response.json()
  kind = wire.WRONG_FIELD if status == 422 else wire.REFUSED
  assert wire.fault(found, kind) is None
  said = found["detail"][0]["msg"] if status == 422 else found["detail"]
  assert said and "\n" not in said and "Traceback" not in said
  return said


@pytest.mark.parametrize(
  "path, body, status, words",
  [
    ("/explain", {}, 400, "there is nothing to read"),
    ("/explain", {"text": ""}, 400, "there is nothing to read"),
    ("/explain", {"text": " \n "}, 400, "the text is empty"),
    ("/explain", {"text": 7}, 422, "expected a text, got 7"),
    ("/explain", {"text": "ab", "positions": [2]}, 400, "position 2 is outside: there are 2 tokens"),
    ("/explain", {"text": "ab", "positions": [-3]}, 400, "expected -2 to 1"),
    ("/explain", {"text": "ab", "positions": [True]}, 422, "whole numbers, got True"),
    ("/explain", {"text": "ab", "positions": [10**400]}, 400, "is outside"),
    ("/explain", {"text": "ab", "positions": "last"}, 422, "a list of at most"),
    ("/explain", {"text": "ab", "positions": [0] * 513}, 422, "a list of at most 512"),
    ("/explain", {"text": "a" * 600}, 400, "600 tokens are more than the 512 positions"),
    ("/explain", {"text": "a" * 65_537}, 422, "65,537 characters"),
    ("/explain", {"text": "half \ud83d of it"}, 400, "half of a surrogate pair"),
    ("/explain", {"text": "a", "temperature": -1}, 422, "a number from 0.0 to 5.0, got -1"),
    ("/explain", {"text": "a", "temperature": "hot"}, 422, "got 'hot'"),
    ("/explain", {"text": "a", "max_new_tokens": 0}, 422, "a whole number from 1 to 512"),
    ("/explain", {"text": "a", "max_new_tokens": 10**9}, 422, "a whole number from 1 to 512"),
    ("/explain", {"text": "a", "stream": 1}, 422, "expected true or false, got 1"),
    ("/explain", {"messages": "hi"}, 422, "expected a list of at most"),
    ("/explain", {"messages": ["hi"]}, 400, "message 1 of messages is a str"),
    ("/explain", {"messages": [{"content": "hi"}]}, 400, "'role' is missing"),
    ("/explain", {"messages": [{"role": "user", "content": "a" * 65_537}]}, 422, "characters"),
    ("/describe", {}, 422, "a list of 1 to 512 activations, got nothing"),
    ("/describe", {"activations": []}, 422, "got 0 of them"),
    ("/describe", {"activations": [UNIT] * 513}, 422, "got 513 of them"),
    ("/describe", {"activations": UNIT}, 422, "activations[0]: expected a list of 8 numbers"),
    ("/describe", {"activations": [[1.0] * 7]}, 400, "has 7 numbers, and this model's activations have 8"),
    ("/describe", {"activations": [[*UNIT[:7], "1"]]}, 422, "expected numbers"),
    ("/describe", {"activations": [[*UNIT[:7], [1.0]]]}, 422, "expected numbers"),
    ("/describe", {"activations": [[*UNIT[:7], None]]}, 422, "expected numbers"),
    ("/describe", {"activations": [[*UNIT[:7], 1e300]]}, 400, "that float32 cannot hold"),
    ("/describe", {"activations": [[0.0] * 8]}, 400, "is zero"),
    ("/score", {"activation": UNIT}, 422, "description: expected a text, got nothing"),
    ("/score", {"description": " ", "activation": UNIT}, 422, "it is empty"),
    ("/score", {"description": "a" * 8193, "activation": UNIT}, 422, "8,193 characters"),
    ("/compare", {"activation_a": UNIT, "activation_b": UNIT}, 400, "the activations are the same"),
    ("/compare", {"text": "ab", "positions": [0]}, 422, "expected two of them, got 1"),
    ("/compare", {"text": "ab", "positions": [0, 2]}, 400, "position 2 is outside"),
    ("/compare", {"text": "ab", "positions": [0, -2]}, 400, "the activations are the same"),
    ("/compare", {"text": "ab"}, 422, "activation_a: expected a list"),
    ("/completion", {"text": "a", "completion_tokens": 0}, 422, "a whole number from 1"),
    ("/read", {"text": "ab", "positions": "nowhere"}, 400, "'nowhere' is no choice"),
    ("/read", {"text": "ab", "positions": {"a": 1}}, 400, "positions"),
    ("/read", {"text": "ab", "best_of": 17}, 422, "from 1 to 16"),
    ("/read", {"text": "a" * 300, "positions": "all", "samples": 16}, 422, "are 19,200 draws"),
    ("/steer", {"text": "a"}, 422, "edit: expected a text"),
    ("/steer", {"text": "a", "edit": {"a": 1}}, 422, "words and their replacements"),
    ("/steer", {"text": "a", "edit": "b", "strengths": [1] * 9}, 422, "1 to 8 numbers, got 9"),
    ("/steer", {"text": "a", "edit": "b", "position": [1]}, 422, "position: expected an index"),
  ],
)  # fmt: skip
def test_a_wrong_field_is_named(client, path, body, status, words):
  response = client.post(path, content=json.dumps(body), headers=JSON)
  assert words in sentence(response, status)
  assert client.get("/").status_code == 200


def test_a_template_that_refuses_is_quoted(client, service):
  service.reader.tokenizer.chat_template = "{{ raise_exception('only one system message') }}"
  response = client.post("/tokenize", json={"messages": [{"role": "user", "content": "a"}]})
  assert "only one system message" in sentence(response, 400)


@pytest.mark.parametrize(
  "content, status, words",
  [
    (b"", 400, "the body is not JSON"),
    (b'{"text": ', 400, "the body is not JSON"),
    (b"\xff\xfe{", 400, "the body is not JSON"),
    (b"[1]", 400, "the body is a JSON list"),
    (b'{"a": NaN}', 400, "the body holds NaN"),
    (b'{"a": -Infinity}', 400, "the body holds -Infinity"),
    (b"[" * 100_000, 400, "the body is not JSON"),
    (b'{"a": ' + b"9" * 5000 + b"}", 400, "the body is not JSON"),
  ],
)
def test_broken_json_is_refused(client, content, status, words):
  assert words in sentence(client.post("/describe", content=content, headers=JSON), status)
  assert client.get("/").status_code == 200


def test_a_number_that_is_infinite_in_python_is_refused(client):
  content = b'{"activations": [[1e999, 0, 0, 0, 0, 0, 0, 0]]}'
  assert "float32 cannot hold" in sentence(
    client.post("/describe", content=content, headers=JSON), 400
  )


def test_other_types_than_json_are_refused(client):
  for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
    response = client.post("/tokenize", content=b'{"text": "a"}', headers={"Content-Type": kind})
    assert "Content-Type: application/json" in sentence(response, 415)


def test_paths_and_methods_that_are_not_served_name_those_that_are(client):
  assert "GET /, POST /explain" in sentence(client.post("/nothing", json={}), 404)
  assert "POST /explain" in sentence(client.get("/explain"), 405)


def test_a_body_is_counted_before_it_is_parsed(make_service):
  service = make_service(body_bytes=1000)
  with served(service) as port:
    # 1. Announced, and refused before it is sent.
    response = posted(port, "/tokenize", b" " * 1001)
    assert response.status == 413 and b"larger than 1,000 bytes" in response.read()

    # 2. Sent in pieces without a length.
    pieces = (b" " * 100 for _ in range(11))
    connection = response.connection
    connection.close()
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/tokenize", pieces, headers, encode_chunked=True)
    assert connection.getresponse().status == 413

    # 3. One byte less is read.
    response = posted(port, "/tokenize", b'{"text": "a"}'.ljust(1000))
    assert response.status == 200
  assert service.inside == 0


def test_a_body_that_does_not_come_is_not_waited_for(make_service):
  service = make_service(body_seconds=0.2)
  with served(service) as port:
    response = posted(port, "/tokenize", b"{}", {"Content-Length": "10"})
    assert response.status == 408 and b"did not arrive within 0.2 seconds" in response.read()
  assert service.inside == 0


def test_the_secret_is_asked_for_on_every_path_that_answers(make_service):
  client = TestClient(application(make_service(secret="a long secret")))
  body = {"text": "a"}
  for right in ({"X-SECRET-KEY": "a long secret"}, {"x-secret-key": "a long secret"}):
    assert client.post("/tokenize", json=body, headers=right).status_code == 200
    assert client.get("/", headers=right).status_code == 200
  for ask in (client.get, lambda path, **more: client.post("/tokenize", json=body, **more)):
    assert "X-SECRET-KEY" in sentence(ask("/"), 401)
    wrong = {"X-SECRET-KEY": "another secret"}
    assert "is wrong" in sentence(ask("/", headers=wrong), 403)
    hostile = {"X-SECRET-KEY": "a long secret\u00e9".encode("latin-1")}
    assert "is wrong" in sentence(ask("/", headers=hostile), 403)


def test_a_name_of_another_site_is_refused_without_a_secret(client, make_service):
  foreign = {"Host": "evil.example:5009"}
  assert "names the host 'evil.example:5009'" in sentence(client.get("/", headers=foreign), 403)
  for name in ("localhost:5009", "127.0.0.1", "[::1]:5009"):
    assert client.get("/", headers={"Host": name}).status_code == 200
  # With a secret nobody else can ask, whatever the server is called.
  guarded = TestClient(application(make_service(secret="a long secret")))
  headers = {**foreign, "X-SECRET-KEY": "a long secret"}
  assert guarded.get("/", headers=headers).status_code == 200


def test_failures_of_the_server_say_so_and_keep_it_up(client, service, capsys):
  def fails(text, vector):
    raise RuntimeError("out of memory")

  service.reader.score = fails
  body = {"description": "snow", "activation": UNIT}
  said = sentence(client.post("/score", json=body), 500)
  assert "its log says more" in said and "memory" not in said
  assert "RuntimeError: out of memory" in capsys.readouterr().err
  assert client.post("/describe", json={"activations": [UNIT]}).status_code == 200

  def refuses(text, vector):
    raise NLAError("what the AR rebuilds is zero")

  service.reader.score = refuses
  assert "is zero" in sentence(client.post("/score", json=body), 400)


def test_limits_are_more_than_nothing():
  for name in ("concurrent", "rows", "request_seconds"):
    with pytest.raises(NLAError, match=f"{name}=0"):
      Limits(**{name: 0})
  assert Limits(positions=np.int64(3)).positions == 3
