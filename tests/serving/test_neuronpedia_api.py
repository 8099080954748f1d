"""Neuronpedia's NLA API: every answer and every frame has the names and kinds that its clients read."""

import pytest
from support import wire
from support.known_reader import BASELINE, LAYER, WIDTH
from support.serving import frames, posted, served

CHAT = [
  {"role": "user", "content": "Say hi", "channel": None},
  {"role": "assistant", "content": "hi", "channel": "final"},
]
UNIT = [0.0, 0.0, 3.0, *[0.0] * 5]
OTHER = [0.0, 5.0, *[0.0] * 6]
BODIES = {
  "/explain": {"text": "ab", "positions": [-1, 0]},
  "/describe": {"activations": [UNIT, OTHER]},
  "/score": {"description": "snow", "activation": UNIT},
  "/compare": {"activation_a": UNIT, "activation_b": OTHER},
  "/extract": {"text": "ab"},
  "/tokenize": {"messages": CHAT},
  "/completion": {"messages": CHAT[:1]},
}


def answer(client, path, **more):
  response = client.post(path, json={**BODIES.get(path, {}), **more})
  assert response.status_code == 200, response.text
  return response.json()


def stream(client, path, **more):
  response = client.post(path, json={**BODIES[path], **more, "stream": True})
  assert response.status_code == 200, response.text
  assert response.headers["content-type"].startswith("text/event-stream")
  *found, end = frames(response.text)
  assert end == "[DONE]"
  return found


@pytest.mark.parametrize("path", BODIES)
def test_every_answer_has_the_fields_of_the_api(client, path):
  assert wire.fault(answer(client, path), wire.ANSWERS[path]) is None


def test_the_status_says_what_clients_look_for(client):
  found = client.get("/").json()
  assert wire.fault(found, wire.STATUS, more=True) is None
  assert wire.fault(found["limits"], wire.LIMITS, more=True) is None
  assert found["status"] == "ok" and found["baseline"] == BASELINE


def test_explain_takes_positions_from_the_end_and_answers_from_last_to_first(client):
  found = answer(client, "/explain", positions=[0, -1])
  assert [one["position"] for one in found["results"]] == [1, 0]
  assert found["layer_index"] == LAYER and [one["token"] for one in found["results"]] == ["b", "a"]

  found = answer(client, "/explain", positions=[0, -1], reverse=False)
  assert [one["position"] for one in found["results"]] == [0, 1]
  assert [one["l2_norm"] for one in found["results"]] == [2.0, 2.0]


@pytest.mark.parametrize("positions", [None, []])
def test_explain_without_positions_explains_all(client, positions):
  found = answer(client, "/explain", positions=positions, text="abc", reverse=False)
  assert [one["token"] for one in found["results"]] == ["a", "b", "c"]


def test_an_answer_without_an_explanation_is_shown_and_has_no_score(client):
  [found] = answer(client, "/describe", activations=[[9.0] + [0.0] * 7])["results"]
  assert found == {"description": "<explanation>\nunit", "mse": None, "cosine_similarity": None}


def test_tokens_know_their_message_and_section(client):
  found = answer(client, "/tokenize", add_generation_prompt=False)
  assert found["prompt_length"] == len(found["tokens"])
  assert "".join(one["token"] for one in found["tokens"]) == found["text"]
  said = [
    one for one in found["tokens"] if one["message_index"] == 1 and one["section"] == "content"
  ]
  assert [one["token"] for one in said] == ["h", "i"]
  assert {(one["role"], one["channel"]) for one in said} == {("assistant", "final")}


def test_a_conversation_ends_with_the_beginning_of_a_reply_unless_it_is_told_not_to(client):
  texts = {
    name: answer(client, "/tokenize", messages=CHAT[:1], **options)["text"]
    for name, options in {
      "default": {},
      "reply": {"add_generation_prompt": True},
      "none": {"add_generation_prompt": False},
    }.items()
  }
  assert texts["default"] == texts["reply"] == texts["none"] + "<|im_start|>assistant\n"

  # This API's clients leave the default of the one in place where they set the other.
  open_end = answer(client, "/tokenize", continue_final_message=True, add_generation_prompt=True)
  assert open_end["text"].endswith("assistant\nhi")


def test_tokens_that_share_a_character_say_so(client):
  found = answer(client, "/tokenize", messages=None, text="a😀")["tokens"]
  assert [(one["token"], one["fragment_index"], one["fragment_count"]) for one in found] == [
    ("a", 0, 1),
    *[("😀", i, 4) for i in range(4)],
  ]


def test_a_completion_goes_on_where_the_prompt_ends(client):
  found = answer(client, "/completion")
  new = found["tokens"][found["prompt_length"] :]
  assert found["text"].endswith("assistant\n😀!?") and len(new) == 6
  assert [one["position"] for one in new] == list(
    range(found["prompt_length"], len(found["tokens"]))
  )
  assert {(one["role"], one["section"]) for one in new} == {("assistant", "content")}
  # The number of tokens is cut to the limit, where other paths would refuse it.
  assert answer(client, "/completion", completion_tokens=10**6)["text"] == found["text"]


def test_compare_explains_the_first_less_the_second(client):
  found = answer(client, "/compare")
  assert found["description"].startswith("unit 2 ")
  assert found["diff_norm"] == pytest.approx(34**0.5)

  # Of our own: the activations at two tokens of what is read. That of "b" is at 1, its id less that of "a".
  here = client.post("/compare", json={"text": "ab", "positions": [1, 0]}).json()
  one, other = (row["activation"] for row in answer(client, "/extract")["tokens"])
  difference = {"activation_a": other, "activation_b": one}
  assert here == client.post("/compare", json=difference).json()
  assert here != client.post("/compare", json={"text": "ab", "positions": [0, 1]}).json()


def test_explain_streams_what_is_written_and_then_each_result(client):
  found = stream(client, "/explain", positions=[0, -1])
  kinds = [wire.which(one, wire.EXPLAIN_FRAMES) for one in found]
  assert kinds[0] == 0 and kinds.count(0) == 1 and kinds.count(2) == 2
  assert found[0] == {"layer_index": LAYER, "total": 2, "prompt_length": 2}
  # Clients tell a partial answer from a result by its lack of a description.
  partial = [one for one, kind in zip(found, kinds) if kind == 1]
  assert all(
    "description" not in one and one["text"].startswith("<explanation>") for one in partial
  )

  whole = answer(client, "/explain", positions=[0, -1])["results"]
  results = [one for one, kind in zip(found, kinds) if kind == 2]
  assert sorted(results, key=lambda one: -one["position"]) == whole


def test_partial_answers_come_before_the_result(make_service):
  service = make_service()
  service.reader.gate.clear()
  with served(service) as port:
    response = posted(port, "/describe", {**BODIES["/describe"], "stream": True})
    first = response.read1().decode()
    assert wire.which(frames(first)[0], wire.DESCRIBE_FRAMES) == 0
    service.reader.gate.set()
    *found, end = frames(first + response.read().decode())
  kinds = [wire.which(one, wire.DESCRIBE_FRAMES) for one in found]
  assert end == "[DONE]" and kinds.count(1) == 2
  assert {one["index"] for one, kind in zip(found, kinds) if kind == 1} == {0, 1}


def test_a_completion_streams_its_prompt_its_tokens_and_its_text(client):
  found = stream(client, "/completion")
  assert [wire.which(one, wire.COMPLETION_FRAMES) for one in found] == [0, *[1] * 6, 2]
  whole = answer(client, "/completion")
  assert found[0]["tokens"] + [one["token"] for one in found[1:-1]] == whole["tokens"]
  assert found[-1]["text"] == whole["text"]


def test_a_completion_streams_a_token_when_its_character_is_whole(make_service):
  service = make_service()
  service.reader.gate.clear()
  with served(service) as port:
    response = posted(port, "/completion", {"text": "a", "stream": True})
    found = ""
    # The emoji and "!" are written and the last token is not.
    while found.count("token_id") < 1 + 5:
      found += response.read1().decode()
    shown = [one["token"]["token"] for one in frames(found) if one["type"] == "token"]
    assert shown == [*["😀"] * 4, "!"]
    service.reader.gate.set()
    *_, last, done, end = frames(found + response.read().decode())
  assert (last["token"]["token"], done["text"], end) == ("?", "a😀!?", "[DONE]")


def test_a_schema_that_fits_nothing_would_be_noticed():
  token = dict.fromkeys(wire.TOKEN, None)
  assert wire.fault(token, wire.TOKEN) is not None
  assert wire.fault({**wire.SCORE, "mse": 1, "cosine_similarity": True}, wire.SCORE) is not None
  assert wire.fault({"mse": 1, "cosine_similarity": 1, "x": 1}, wire.SCORE) is not None
  assert wire.fault({"mse": 1, "cosine_similarity": 0.5}, wire.SCORE) is None


def test_widths_are_those_of_the_pair(client):
  assert client.get("/").json()["d_model"] == WIDTH
