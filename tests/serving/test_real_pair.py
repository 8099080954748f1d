"""A pair with random weights behind the server: what is served is what the library gives."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.serving import TestClient, frames

from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.pair import PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.cli import serve
from nla_jax.evaluation.claims import attach
from nla_jax.evaluation.claims.confidence import Model
from nla_jax.evaluation.claims.evidence import FEATURES, Read
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.pairs.load import load_target
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.serving import run
from nla_jax.serving.limits import Limits
from nla_jax.serving.reader import Reader
from nla_jax.serving.server import application
from nla_jax.serving.service import Service

LAYER, CAP, SCALE = 1, 8, 5.0
PROMPT = "Explain <concept>{injection_char}</concept>"


@pytest.fixture(scope="module")
def nla():
  base = load_pretrained("random:tiny")
  prompts = make_prompts(base.tokenizer, PROMPT)
  pair = make_pair(
    base.architecture,
    base.tokenizer,
    prompts,
    PairSettings(layer=LAYER, scale=SCALE, max_new_tokens=CAP),
  )
  # Without a special token's row such a token is never the likeliest, so that answers have words.
  spoken = base.params["embedding"].at[256:].set(0)
  av = verbalizer_params({**base.params, "embedding": spoken}, base.architecture.d_model, "scalar")
  ar = reconstructor_params(base.params, LAYER)
  load = lambda *asked: load_target(*asked, pair=pair)
  return NLA(pair, av, ar, "random:tiny", 0.5, load)


OPTIONS = {"positions": 1, "samples": 1, "resamples": 1}
TRUST = Model(FEATURES, np.zeros(6), np.ones(6), np.arange(6) / 10, -0.2, OPTIONS)


@pytest.fixture(scope="module")
def client(nla):
  reader = Reader(nla, "random", rows=4)
  reader.trust = TRUST
  service = Service(reader, Limits())
  yield TestClient(application(service))
  assert service.close(60)


@pytest.fixture
def client_without_trust(nla):
  service = Service(Reader(nla, "random", rows=4), Limits())
  yield TestClient(application(service))
  assert service.close(60)


def post(client, path, **body):
  response = client.post(path, json=body)
  assert response.status_code == 200, response.text
  return response.json()


def vectors(n: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=(n, 64)).astype(np.float32) * 40


def embeds_of_the_reference(nla, vector) -> list[list[float]]:
  """What the reference's client sends: embeddings in bfloat16, and the activation at norm α over the marker's."""
  tokenizer, prompts = nla.pair.tokenizer, nla.pair.prompts
  content = PROMPT.format(injection_char=prompts.marker)
  messages = [{"role": "user", "content": content}]
  ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
  table = nla.av_params["transformer"]["embedding"].astype(jnp.bfloat16).astype(jnp.float32)
  rows = np.array(table[jnp.array(ids)])
  [slot] = [
    i for i, one in enumerate(ids) if one == tokenizer.convert_tokens_to_ids(prompts.marker)
  ]
  rows[slot] = vector / np.linalg.norm(vector) * SCALE
  return rows.tolist()


def test_the_references_request_is_answered_with_the_greedy_explanation(client, nla):
  for vector in vectors(3):
    sampling = {"temperature": 0.0, "max_new_tokens": 200, "skip_special_tokens": False}
    found = post(
      client,
      "/generate",
      input_embeds=embeds_of_the_reference(nla, vector),
      sampling_params=sampling,
    )
    [wanted] = nla.explain(vector[None], greedy=True)
    assert found["text"] == wanted.answer
    assert found["meta_info"]["finish_reason"] == {"type": "length"}


def test_a_list_of_prompts_is_answered_with_a_list(client, nla):
  prompts = [embeds_of_the_reference(nla, vector) for vector in vectors(2)]
  found = post(client, "/generate", input_embeds=prompts, sampling_params={"temperature": 0})
  wanted = nla.explain(vectors(2), greedy=True)
  assert len({one.answer for one in wanted}) == 2
  assert [one["text"] for one in found] == [one.answer for one in wanted]


@pytest.mark.parametrize(
  "change, status, words",
  [
    (lambda rows: rows[:-1], 400, "this pair's prompt with its activation is"),
    (lambda rows: [row[:-1] for row in rows], 400, "this pair's prompt with its activation is"),
    (lambda rows: [rows[1], *rows[1:]], 400, "row 0 of input_embeds is not the embedding"),
    (lambda rows: [[0.0] * len(row) for row in rows], 400, "zero activation"),
    (lambda rows: [*rows[:-1], rows[-1][:-1]], 422, "expected numbers in lists of one length"),
    (lambda rows: rows[0], 422, "expected input_embeds: [T][d]"),
    (lambda rows: "Explain", 422, "expected input_embeds: [T][d]"),
    (lambda rows: [], 422, "expected input_embeds: [T][d]"),
  ],
)
def test_other_prompts_than_the_pairs_are_refused(client, nla, change, status, words):
  rows = change(embeds_of_the_reference(nla, vectors(1)[0]))
  response = client.post("/generate", json={"input_embeds": rows})
  assert response.status_code == status and words in response.text


@pytest.mark.parametrize("setting", [{"top_p": 0.9}, {"top_k": 40}, {"stop": ["\n"]}, {"n": 2}])
def test_settings_that_would_be_ignored_are_refused_by_name(client, nla, setting):
  rows = embeds_of_the_reference(nla, vectors(1)[0])
  sampling = {"temperature": 1.0, **setting}
  response = client.post("/generate", json={"input_embeds": rows, "sampling_params": sampling})
  assert response.status_code == 422
  assert f"sampling_params.{next(iter(setting))}" in response.text
  # What changes nothing is taken.
  post(client, "/generate", input_embeds=rows, sampling_params={"top_p": 1.0, "top_k": -1, "n": 1})


def test_activations_are_those_of_the_library(client, nla):
  found = post(client, "/extract", text="What now?")
  tokens = nla.tokens("What now?")
  assert [one["token_id"] for one in found["tokens"]] == tokens.ids
  [wanted] = nla.activations([tokens.ids], [list(range(len(tokens)))])
  np.testing.assert_array_equal([one["activation"] for one in found["tokens"]], wanted)
  norms = [one["l2_norm"] for one in found["tokens"]]
  np.testing.assert_allclose(norms, np.linalg.norm(wanted, axis=1), rtol=1e-6)


def test_a_score_is_the_ars(client, nla):
  [vector] = vectors(1)
  found = post(client, "/score", description="about snow", activation=vector.tolist())
  [rebuilt] = nla.reconstruct(["about snow"])
  cosine = vector @ rebuilt / np.linalg.norm(vector) / np.linalg.norm(rebuilt)
  assert found["cosine_similarity"] == pytest.approx(cosine, abs=1e-5)
  assert found["mse"] == pytest.approx(2 - 2 * cosine, abs=1e-5)


def test_draws_do_not_depend_on_who_shares_the_batch(client):
  several = vectors(3)
  together = post(client, "/describe", activations=several.tolist(), temperature=1.0)["results"]
  # Each row of a request has a stream of its own, which its neighbours do not change.
  first = post(client, "/describe", activations=several[:1].tolist(), temperature=1.0)["results"]
  assert together[:1] == first
  changed = np.concatenate([vectors(2, seed=1), several[2:]])
  other = post(client, "/describe", activations=changed.tolist(), temperature=1.0)["results"]
  assert together[2] == other[2] and together[0] != other[0]


def test_caps_are_rounded_down_to_those_that_have_their_programs(nla):
  reader = Reader(nla)
  assert [reader._cap(n) for n in (1, 3, 4, 7, 8, 9, 200)] == [1, 2, 4, 4, CAP, CAP, CAP]


def test_reading_streams_what_the_library_reads(client, nla):
  messages = [{"role": "user", "content": "Hi"}]
  body = {"messages": messages, "positions": "user", "greedy": True, "best_of": 1}
  whole = post(client, "/read", **body)
  wanted = nla.read(messages, "user", best_of=1, greedy=True).to_json()
  assert whole["tokens"] == wanted["tokens"] and len(whole["positions"]) == 2
  for found, one in zip(whole["positions"], wanted["positions"]):
    assert found["samples"][0]["answer"] == one["samples"][0]["answer"]
    assert found["norm"] == pytest.approx(one["norm"], rel=1e-6)

  text = client.post("/read", json={**body, "stream": True}).text
  results = [one for one in frames(text)[1:-1] if one["done"]]
  assert [one["samples"] for one in results] == [one["samples"] for one in whole["positions"]]


def test_a_completion_is_the_targets(client, nla):
  body = {"text": "What now", "completion_tokens": 5, "temperature": 0}
  found = post(client, "/completion", **body)
  [wanted] = nla.complete(nla.tokens("What now").ids, max_new_tokens=5, greedy=True)
  new = found["tokens"][found["prompt_length"] :]
  assert [one["token_id"] for one in new] == wanted and len(wanted) == 5
  assert [one["position"] for one in new] == list(range(8, 13))

  # Streamed, it is the same with more tokens than are shown at a time.
  body["completion_tokens"] = 20
  *_, done, end = frames(client.post("/completion", json={**body, "stream": True}).text)
  assert end == "[DONE]" and done["text"] == post(client, "/completion", **body)["text"]


def test_steering_is_the_librarys(client, nla):
  # As the page asks for it: a whole new explanation, and where the first one was.
  asked = {"explanation": "about Paris", "edit": "about Rome", "words": ["Rome"], "tokens": 4}
  found = post(client, "/steer", text="What now", position=3, strengths=[1], greedy=True, **asked)
  edit = asked.pop("edit")
  wanted = nla.steer("What now", 3, edit=edit, strength=[1.0], greedy=True, best_of=4, **asked)
  assert found == json.loads(json.dumps(wanted.to_json()))
  assert {arm["name"] for arm in found["arms"]} == {"edit", "random", "unedited", "unrelated"}


def test_the_command_serves_a_pair(nla, monkeypatch, capsys, tmp_path):
  seen = {}

  def runs(app, taken, seconds, on_start):
    on_start()
    seen.update(TestClient(app).get("/").json())

  monkeypatch.setattr(serve, "load", lambda path, **options: nla)
  monkeypatch.setattr(run, "run", runs)
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
  compiled = jax.config.jax_compilation_cache_dir
  try:
    assert serve.main(["--nla=random", "--port=0", "--no-completion", "--max-new-tokens=8"]) == 0
  finally:
    jax.config.update("jax_compilation_cache_dir", compiled)
  assert "nla serve: random at http://127.0.0.1:" in capsys.readouterr().out
  assert seen["limits"]["max_new_tokens"] == 8 and seen["completion_available"] is False
  assert (seen["d_model"], seen["extraction_layer"]) == (64, LAYER)


def test_claims_are_weighed_as_the_library_does(client, nla):
  text = 'Next: the, a\nAbout: rivers\nEnds: "by the river"'
  ids = nla.tokens("abcdef").ids
  found = post(client, "/weigh", text="abcdef", position=3, description=text)
  assert found["position"] == 3 and [one["text"] for one in found["claims"]][:2] == ["the", "a"]
  [vector] = nla.activations([ids], [[3]])[0]
  [expected] = attach.weighed(nla, [Read(ids, 3, vector, text)], TRUST, 0.5, batch=4)
  assert [one["confidence"] for one in found["claims"]] == pytest.approx(
    [one.confidence for one in expected], abs=1e-4
  )
  assert client.get("/").json()["claims_available"] is True


@pytest.mark.parametrize(
  "body, status, words",
  [
    ({"position": 3}, 422, "description"),
    ({"position": 99, "description": "About: a"}, 400, "99"),
    ({"position": "all", "description": "About: a"}, 422, "one can be weighed"),
  ],
)
def test_what_cannot_be_weighed_is_one_sentence(client, body, status, words):
  response = client.post("/weigh", json={"text": "abcdef", **body})
  assert response.status_code == status and words in str(response.json()["detail"])


def test_a_server_without_a_model_of_claims_says_how_to_start_it(client_without_trust):
  body = {"text": "abc", "description": "About: a"}
  response = client_without_trust.post("/weigh", json=body)
  assert response.status_code == 503 and "--claims=metrics.json" in response.json()["detail"]
