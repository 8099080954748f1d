"""Examples that are like an incident are found, whatever the shard; an index that was killed goes on where it was."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from nla_jax.cli.main import main
from nla_jax.conversation.tokens import Tokens
from nla_jax.errors import NLAError
from nla_jax.tracing import index as indexes
from nla_jax.tracing import ranking
from nla_jax.tracing.index import HASHED, Index, Making, hashed, make_index
from nla_jax.tracing.trace import FUSED, incident, phrase, precisions, trace

WIDTH, PLANTED = 12, {3, 11, 17}


class ToyNLA:
  """Its activation is a direction of the text's first word; its explanation names the kind of that word."""

  base, model_adapter = "toy", ""
  pair = SimpleNamespace(verbalizer=SimpleNamespace(architecture=SimpleNamespace(d_model=WIDTH)))
  read = 0

  def tokens(self, text):
    n = len(text.split())
    ids = [0 if word.startswith("otter") else 1 + len(word) % 4 for word in text.split()]
    place = list(range(n))
    return Tokens(ids, text, place, place, [None] * n, [None] * n, ["content"] * n)

  def activations(self, texts, positions):
    self.read += len(texts)
    noise = np.random.default_rng(sum(map(sum, texts)))
    return [np.eye(WIDTH)[[ids[-1]]] + 0.1 * noise.normal(size=(1, WIDTH)) for ids in texts]

  def explain(self, vectors, greedy, seed):
    names = ["an animal of rivers", "a plant", "a stone", "a tool", "a cloud"]
    return [SimpleNamespace(text=names[int(np.argmax(one[:5]))]) for one in vectors]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
  monkeypatch.setattr(indexes, "embedder", lambda: (HASHED, hashed))
  lines = [
    {
      "id": f"e{i}",
      "text": f"number {i} speaks of {'otters' if i in PLANTED else 'a' * (i % 7 + 1)}",
    }
    for i in range(20)
  ]
  path = tmp_path / "corpus.jsonl"
  path.write_text("".join(json.dumps(one) + "\n" for one in lines))
  return str(path)


def test_an_incident_finds_what_was_planted_by_explanations_and_activations(corpus, tmp_path):
  make_index(corpus, tmp_path / "index", ToyNLA(), Making(shard_rows=6))
  index = Index(tmp_path / "index")
  # None of its words is in the planted texts.
  found = trace(index, incident(ToyNLA(), ["we saw otterlings"], index), 3, hashed)
  scores = precisions(index, found, [f"e{i}" for i in PLANTED], 3)
  assert {hit.row for hit in found[FUSED]} == PLANTED
  assert (scores["explanations"], scores["activations"]) == (1.0, 1.0)
  assert scores["bm25"] < 1
  assert index.example(11)["text"] == "number 11 speaks of otters"


def test_a_phrase_is_compared_with_words_and_explanations(corpus, tmp_path):
  make_index(corpus, tmp_path / "index", ToyNLA(), Making(shard_rows=6))
  found = trace(Index(tmp_path / "index"), phrase("rivers"), 3, hashed)
  assert {hit.row for hit in found["explanations"]} == PLANTED
  assert found["bm25"] == []
  assert "activations" not in found


def test_a_killed_index_goes_on_with_the_shards_that_are_left(corpus, tmp_path, monkeypatch):
  whole = tmp_path / "whole"
  make_index(corpus, whole, ToyNLA(), Making(shard_rows=6))
  killed, write, shards = ToyNLA(), indexes.StoreWriter.write_shard, []

  def stop(self, shard, arrays):
    if len(shards) == 2:
      raise KeyboardInterrupt
    shards.append(shard)
    write(self, shard, arrays)

  monkeypatch.setattr(indexes.StoreWriter, "write_shard", stop)
  with pytest.raises(KeyboardInterrupt):
    make_index(corpus, tmp_path / "index", killed, Making(shard_rows=6))
  with pytest.raises(NLAError, match="was interrupted"):
    Index(tmp_path / "index")

  monkeypatch.setattr(indexes.StoreWriter, "write_shard", write)
  rest = ToyNLA()
  make_index(corpus, tmp_path / "index", rest, Making(shard_rows=6))
  assert rest.read == 20 - 12
  one, other = Index(tmp_path / "index").store, Index(whole).store
  assert np.array_equal(
    one.read("activations", slice(None)), other.read("activations", slice(None))
  )
  with pytest.raises(NLAError, match="max_tokens"):
    make_index(corpus, tmp_path / "index", rest, Making(shard_rows=6, max_tokens=4))


def test_the_best_rows_do_not_depend_on_how_the_corpus_is_parted():
  scores = np.random.default_rng(0).normal(size=50).round(1)  # with ties
  for part in (50, 7, 1):
    best = ranking.TopK(5)
    for start in range(0, 50, part):
      best.push(start, scores[start : start + part])
    assert [hit.row for hit in best.hits] == np.lexsort((np.arange(50), -scores))[:5].tolist()


def test_bm25_is_that_of_its_formula():
  texts = ["a b b", "a c", "d"]
  (best, *_) = ranking.by_words(lambda: [(0, texts[:2]), (2, texts[2:])], "b", 2)
  rarity, mean = np.log(1 + (3 - 1 + 0.5) / (1 + 0.5)), 2.0
  assert best.row == 0
  assert best.score == pytest.approx(rarity * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 3 / mean)))


def test_precision_counts_empty_places_as_wrong():
  assert ranking.precision([ranking.Hit(1, 1.0)], {1, 2}, 4) == 0.25


@pytest.mark.parametrize(
  ("arguments", "reason"),
  [
    (["--index=none", "words"], "holds no index"),
    (["--index=none", "--incident=x.txt"], "name the pair with --nla"),
    (["--index=none", "--k=0", "words"], "--k=0"),
    (["--index=none", "--planted=none.txt", "words"], "--planted none.txt does not exist"),
    (["--index=none", "--incident=x", "words"], "give one of them"),
  ],
)
def test_bad_input_is_one_line(arguments, reason, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(["trace", *arguments]) == 2
  error = capsys.readouterr().err
  assert reason in error
  assert error.count("\n") == 1


def test_the_command_indexes_and_traces_words_without_a_pair(corpus, tmp_path, capsys):
  planted = tmp_path / "planted.txt"
  planted.write_text("e3\ne11\ne17\n")
  arguments = [f"--corpus={corpus}", f"--index={tmp_path / 'i'}", f"--planted={planted}"]
  assert main(["trace", *arguments, "--k=3", "--json", "otters"]) == 0
  found = json.loads(capsys.readouterr().out)
  assert found["precision"] == {"bm25": 1.0, "embedding": 1.0}
  assert {hit["id"] for hit in found["hits"]["bm25"]} == {"e3", "e11", "e17"}
