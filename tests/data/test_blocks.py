"""A corpus in blocks: what is selected is what one process selects that holds all of it, and nobody holds all of it."""

import hashlib
import json
import random
import tracemalloc

import numpy as np
import pytest
from support.threads_as_processes import in_processes

from nla_jax.config import default_config
from nla_jax.data import reading_corpus
from nla_jax.data.blocks import RECORDS, ROWS
from nla_jax.data.positions import SPLITS, join_copies, join_numbers, text_mark
from nla_jax.data.selection import select
from nla_jax.data.store.documents import documents_to_parquet
from nla_jax.interop.base_models.random_model import byte_tokenizer
from nla_jax.parallel import distributed


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
  """Three blocks of texts, of which many are copies, begin alike, or share groups, and one of conversations."""
  folder, draw = tmp_path_factory.mktemp("corpus"), random.Random(5)
  texts = ["".join(draw.choices("abcdefghé ", k=draw.randrange(3, 70))) for _ in range(900)]
  rows = []
  for i in range(2 * RECORDS + 76):
    row = {"text": f"{draw.choice(('', 'alike '))}{draw.choice(texts)}", "id": f"x{i * 7 % 1109}"}
    rows.append(row | ({"group": f"ü{draw.randrange(300)}"} if i % 2 else {}))
  talks = [
    {"messages": [{"role": "user", "content": f"say {i % 40}"}, {"role": "assistant", "content": f"well, {i % 40}"}]}
    for i in range(90)
  ]  # fmt: skip
  for name, lines in (("texts", rows), ("talks", talks)):
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
  return folder


def _config(corpus: str, **data):
  config = default_config()
  config.corpus = corpus
  config.data.update({"position_minimum": 8, "positions_per_document": 4, "max_tokens": 60, **data})
  return config


def _digest(found) -> str:
  """Of the documents with their splits, the rows, and what was counted."""
  counts = found.counts._asdict() | {"groups": sorted(found.counts.groups.items())}
  parts = {name: part._asdict() for name, part in found.parts.items()}
  content = hashlib.sha256(documents_to_parquet(list(found.documents)))
  content.update(found.document.tobytes() + found.position.tobytes())
  content.update(json.dumps([counts, parts, bool(found.conversations)]).encode())
  return content.hexdigest()[:16]


CASES = {
  "texts": {},
  "texts drawn": {"max_documents": 700},
  "both": {},
  "both weighed": {"max_documents": 300, "weights": "texts=0.75,talks=0.25"},
}
# Written down with the program as it was when every process held the whole corpus.
EXPECTED = {
  "texts": "8a47c955b4ae6fb0",
  "texts drawn": "21155dcf581bb605",
  "both": "e657714542725fa7",
  "both weighed": "98970b121dec4033",
}


def _case(corpus, name: str):
  both = f"{corpus / 'texts.jsonl'}+{corpus / 'talks.jsonl'}"
  return _config(both if "both" in name else str(corpus / "texts.jsonl"), **CASES[name])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_processes_selects_what_one_did_that_held_everything(
  corpus, name, count, tmp_path, monkeypatch
):
  config = _case(corpus, name)
  function = lambda: select(config, byte_tokenizer(), str(tmp_path / "tokens"))
  for found in in_processes(count, monkeypatch, function):
    assert _digest(found) == EXPECTED[name]


@pytest.mark.parametrize(("before", "behind"), [(2, 1), (1, 3), (3, 2)])
@pytest.mark.parametrize("name", ["both", "texts drawn"])
def test_blocks_of_a_stopped_run_are_taken_up_by_others(
  corpus, name, before, behind, tmp_path, monkeypatch
):
  config, folder = _case(corpus, name), tmp_path / "tokens"
  function = lambda: select(config, byte_tokenizer(), str(folder), "of this tokenizer")
  # Drawn is from what was counted: three blocks, and then two of the three.
  for stopped in in_processes(before, monkeypatch, function, 6 if "drawn" in name else 3):
    assert isinstance(stopped, distributed.PreemptedError)
  times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}
  assert len([path for path in times if path.parent.name == ROWS]) == 2

  for found in in_processes(behind, monkeypatch, function):
    assert _digest(found) == EXPECTED[name]
  assert times == {path: path.stat().st_mtime_ns for path in times}


def test_all_blocks_are_read_without_the_corpus(corpus, tmp_path, monkeypatch):
  config = _case(corpus, "both")
  ask = lambda: select(config, byte_tokenizer(), str(tmp_path / "tokens"), "a hash")
  before = _digest(ask())
  monkeypatch.setattr(reading_corpus, "read_blocks", None)
  assert _digest(ask()) == before


def test_blocks_of_another_corpus_tokenizer_or_config_are_not_taken(corpus, tmp_path):
  path = tmp_path / "mine.jsonl"
  lines = (corpus / "texts.jsonl").read_text().splitlines()
  path.write_text("\n".join(lines))
  folder = tmp_path / "tokens"

  def blocks(tokenizer_hash: str = "a", **data) -> int:
    select(_config(str(path), **data), byte_tokenizer(), str(folder), tokenizer_hash)
    return len(list(folder.iterdir()))

  assert [blocks(), blocks(), blocks("b"), blocks(max_tokens=50)] == [1, 1, 2, 3]
  path.write_text("\n".join(lines[:-1]))
  assert blocks() == 4


def test_rows_of_a_shard_are_those_of_the_whole(corpus, tmp_path):
  found = select(_case(corpus, "both"), byte_tokenizer(), str(tmp_path / "tokens"))
  document, position, n = found.document, found.position, len(found)
  assert n == len(document) == len(position) == sum(found.rows_by_split.values())
  # Within a document, from one to the next, over the end of a block, all, and the last.
  for rows in (range(1), range(1, 3), range(3, 700), range(1200, 2500), range(n), range(n - 1, n)):
    part = found.rows(rows)
    np.testing.assert_array_equal(part.document, document[rows.start : rows.stop])
    np.testing.assert_array_equal(part.position, position[rows.start : rows.stop])
    assert set(part.documents) == set(part.document.tolist())
  splits = [found.documents[i].split for i in document.tolist()]
  assert found.rows_by_split == {split: splits.count(split) for split in SPLITS}


def test_an_id_that_two_blocks_have_is_named_in_every_process(tmp_path, monkeypatch):
  rows = [{"text": f"{i} long enough a text", "id": f"n{i}"} for i in range(RECORDS + 5)]
  rows[-1]["id"] = "n3"
  (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
  config = _config(str(tmp_path / "x.jsonl"))
  function = lambda: select(config, byte_tokenizer(), str(tmp_path / "tokens"))
  for found in in_processes(2, monkeypatch, function):
    assert "has the document id 'n3' twice" in str(found)


def test_memory_does_not_grow_by_the_tokens_of_the_corpus(tmp_path):
  """Of 160 tokens a document, 640 bytes and more as text; what is kept of it is a mark and a few numbers."""
  tokenizer, peaks = byte_tokenizer(), {}
  for blocks in (3, 6):
    path, letters = tmp_path / f"{blocks}.jsonl", random.Random(0)
    with path.open("w") as file:
      for _ in range(blocks * RECORDS):
        file.write(json.dumps({"text": "".join(letters.choices("abcdefgh", k=165))}) + "\n")
    config = _config(str(path), max_tokens=160)

    tracemalloc.start()
    found = select(config, tokenizer, str(tmp_path / "tokens"))
    for begin in range(0, len(found), 512):
      found.rows(range(begin, min(begin + 512, len(found))))
    peaks[blocks] = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
  assert (peaks[6] - peaks[3]) / (3 * RECORDS) < 320, peaks


def test_groups_by_number_are_joined_as_groups_by_name():
  draw = random.Random(1)
  for _ in range(30):
    names = [f"g{draw.randrange(12):02d}" for _ in range(40)]
    texts = [[draw.randrange(60)] for _ in names]
    expected, copies = join_copies(names, texts, 3)

    # As the definition has it: groups of one text are one, and so are those of a chain of texts.
    found = dict(zip(names, names, strict=True))
    for _ in names:
      for name, text in zip(names, texts, strict=True):
        same = [found[other] for other, one in zip(names, texts, strict=True) if one == text]
        found[name] = min(found[name], *same)
    joined = [found[name] for name in names]
    assert expected == (joined if len(set(joined)) >= 3 else names)
    assert copies == len(texts) - len({one[0] for one in texts})

  marks = np.array([text_mark([1]), text_mark([2])], "S16")
  numbers, copies = join_numbers(np.array([1, 0], np.int32), marks, 1)
  assert numbers.tolist() == [1, 0] and copies == 0
