"""Positions and splits are those of docs/interchange.md, to the bit, whatever the corpus is cut into."""

import hashlib
import random

import numpy as np
import pytest

from nla_jax.data.positions import choose_positions, split_groups
from nla_jax.errors import NLAError


def _corpus(n: int) -> list[tuple[str, list[int]]]:
  generator = random.Random(0)
  return [
    (f"page {i}", [generator.randrange(100) for _ in range(generator.randrange(20, 200))])
    for i in range(n)
  ]


def test_positions_are_the_formula_of_the_interchange_format():
  for doc_id, tokens in _corpus(50):
    candidates = [i for i in range(len(tokens)) if i >= 50 and tokens[i] not in (3, 5)]
    literal = random.Random(hashlib.sha256(f"42|{doc_id}".encode()).digest())
    expected = sorted(literal.sample(candidates, min(10, len(candidates))))
    assert choose_positions(doc_id, tokens, {3, 5}) == expected


def test_known_positions():
  # random.Random(sha256(b"42|doc").digest()).sample(range(50, 100), 3), computed once and written down
  assert choose_positions("doc", [1] * 100, (), per_document=3) == sorted([59, 94, 84])


def test_special_and_early_tokens_are_never_chosen():
  for doc_id, tokens in _corpus(50):
    chosen = choose_positions(
      doc_id, np.asarray(tokens, np.int32), [7, 8, 9], per_document=1000, minimum=30
    )
    assert all(i >= 30 and tokens[i] not in (7, 8, 9) for i in chosen)
    assert len(chosen) == sum(tokens[i] not in (7, 8, 9) for i in range(30, len(tokens)))


def test_fifty_one_tokens_give_one_position_and_fifty_none():
  assert choose_positions("a", [1] * 51, ()) == [50]
  assert choose_positions("a", [1] * 50, ()) == []


def test_splits_after_the_held_out_cut_are_those_of_the_interchange_format():
  names = [f"d{i}" for i in range(200)]
  splits = split_groups(names, seed=5)
  rest = sorted(name for name in names if splits[name] != "held_out")
  assert len(rest) == 180
  random.Random(5).shuffle(rest)
  expected = ["av_sft"] * 45 + ["ar_sft"] * 45 + ["rl"] * 90
  assert [splits[name] for name in rest] == expected


def test_without_held_out_the_splits_are_the_reference_codes():
  order = sorted({f"d{i}" for i in range(40)})
  random.Random(42).shuffle(order)
  splits = split_groups(order, seed=42, held_out=0)
  assert [splits[name] for name in order] == ["av_sft"] * 10 + ["ar_sft"] * 10 + ["rl"] * 20


def test_held_out_is_cut_first():
  names = [f"d{i}" for i in range(100)]
  held = lambda splits: {name for name, split in splits.items() if split == "held_out"}
  assert held(split_groups(names, seed=1)) == held(
    split_groups(names, seed=1, fractions=(("rl", 1.0),))
  )
  assert len(held(split_groups(names, seed=1))) == 10
  assert held(split_groups(names, seed=1)) != held(split_groups(names, seed=2))


def test_splits_depend_neither_on_order_nor_on_repeats():
  names = [f"d{i}" for i in range(50)]
  assert split_groups(names, seed=3) == split_groups([*names[::-1], *names], seed=3)


@pytest.mark.parametrize("count", range(4, 30))
def test_no_split_is_empty_and_every_group_has_one(count):
  splits = split_groups([str(i) for i in range(count)], seed=0)
  assert len(splits) == count
  assert set(splits.values()) == {"held_out", "av_sft", "ar_sft", "rl"}


def test_too_few_groups_and_wrong_shares_are_told():
  with pytest.raises(NLAError, match="3 group"):
    split_groups(["a", "b", "c"], seed=0)
  with pytest.raises(NLAError, match="adding to 1"):
    split_groups(["a"] * 9, seed=0, fractions=(("rl", 0.5),))


def test_positions_count_from_behind_what_a_template_writes():
  options = {"per_document": 100, "minimum": 5, "opening": [1, 2, 3]}
  talk = choose_positions("talk", [1, 2, 3, *range(10, 40)], (), **options)
  text = choose_positions("text", list(range(10, 43)), (), **options)
  assert talk == list(range(8, 33)) and text == list(range(5, 33))
