"""`/read` and `/steer`, of our own."""

from support.serving import frames

from nla_jax.reading.reading import Reading

CHAT = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "bc"}]
# Without a reply that is begun: what is read is what was said.
BODY = {"messages": CHAT, "positions": "assistant", "samples": 3, "best_of": 2, "seed": 5}


def test_a_conversation_is_read_by_a_choice_in_words(client, service):
  found = client.post("/read", json=BODY).json()
  reading = Reading.from_json(found)
  assert [reading.word(i) for i in range(len(reading))] == ["b", "c"]
  assert reading.best_of == 2 and reading.baseline == 0.5 and reading.norms == [2.0, 2.0]
  assert [len(one) for one in reading.samples] == [3, 3]

  # Every sample draws from a stream of its own.
  [(rows, draw)] = service.reader.batches
  assert [row.stream for row in rows] == list(range(6))
  assert (draw.best_of, draw.seed, draw.greedy, draw.max_new_tokens) == (2, 5, False, 100)


def test_samples_stand_best_first_with_what_they_agree_on(client):
  [first, _] = client.post("/read", json=BODY).json()["positions"]
  errors = [one["mse_nrm"] for one in first["samples"]]
  assert errors == sorted(errors) and errors[0] < errors[-1]
  assert {"unit", "stream"} <= set(first["shared_words"])
  assert 0 < first["agreement"] < 1


def test_what_streams_is_what_is_answered_at_once(client):
  text = client.post("/read", json={**BODY, "stream": True}).text
  first, *found, end = frames(text)
  assert end == "[DONE]"
  whole = client.post("/read", json=BODY).json()
  positions = [one["position"] for one in whole["positions"]]
  assert first == {
    "layer_index": 3,
    "total": 2,
    "prompt_length": len(whole["tokens"]["ids"]),
    "positions": positions,
    "samples": 3,
    "best_of": 2,
    "baseline": 0.5,
  }
  partial = [one for one in found if not one["done"]]
  assert all(set(one) == {"position", "sample", "text", "done"} for one in partial)
  results = [{k: v for k, v in one.items() if k != "done"} for one in found if one["done"]]
  assert sorted(results, key=lambda one: one["position"]) == whole["positions"]


def test_the_last_token_is_read_where_nothing_is_chosen(client):
  found = client.post("/read", json={"text": "abc"}).json()
  assert [one["token"] for one in found["positions"]] == ["c"]
  assert found["best_of"] == 4 and len(found["positions"][0]["samples"]) == 1


def test_a_temperature_of_zero_is_greedy_and_has_no_seed(client, service):
  for body in ({"temperature": 0}, {"greedy": True, "temperature": 0.3}):
    client.post("/read", json={**BODY, **body})
  draws = {draw for _, draw in service.reader.batches}
  assert [(draw.greedy, draw.temperature, draw.seed) for draw in draws] == [(True, 1.0, 0)]


def test_steering_gets_what_was_asked_for(client):
  body = {"messages": CHAT, "position": -2, "edit": {"Paris": "Rome"}, "strengths": [0.5, 1]}
  body |= {"explanation": "about Paris", "where": "generated", "words": ["Rome"], "tokens": 8}
  found = client.post("/steer", json=body).json()
  assert found == {
    "what": CHAT,
    "position": -2,
    "edit": {"Paris": "Rome"},
    "strength": [0.5, 1.0],
    "words": ["Rome"],
    "tokens": 8,
    "samples": 1,
    "best_of": 4,
    "seed": 0,
    "temperature": 1.0,
    "explanation": "about Paris",
    "where": "generated",
  }
