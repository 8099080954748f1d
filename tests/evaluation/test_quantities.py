"""The table names every quantity once, and every suite that measures one exists."""

import importlib
import re
from pathlib import Path

import pytest

import nla_jax
from nla_jax import quantities
from nla_jax.evaluation.suite import QUESTIONS, Suite, load_suites

PACKAGE = Path(nla_jax.__file__).parent


def test_keys_are_unique_and_every_quantity_has_words():
  assert len(quantities.QUANTITIES) == len(quantities.TABLE)
  for one in quantities.TABLE:
    assert one.label and one.sentence.endswith(".") and one.kind in quantities.SECTIONS


def test_every_suite_of_a_table_is_a_module_and_every_module_is_in_one_table():
  folder = PACKAGE / "evaluation" / "suites"
  modules = {
    ".".join(path.relative_to(folder).with_suffix("").parts)
    for path in folder.rglob("*.py")
    if path.name != "__init__.py"
  }
  assert modules == {*quantities.suites(), *QUESTIONS}
  assert not set(quantities.suites()) & set(QUESTIONS)
  every = (*quantities.suites(), *QUESTIONS)
  assert all(isinstance(suite, Suite) for suite in load_suites(every))


def test_a_suite_names_the_keys_that_the_table_says_it_measures():
  for one in quantities.TABLE:
    if one.suite:
      module = importlib.import_module(f"nla_jax.evaluation.suites.{one.suite}")
      assert f'"{one.key}"' in Path(module.__file__).read_text(), one.key


@pytest.mark.parametrize("one", quantities.TABLE, ids=lambda one: one.key)
def test_the_sentence_of_a_quantity_stands_nowhere_else(one):
  places = [path for path in PACKAGE.rglob("*.py") if one.sentence in path.read_text()]
  assert places == [PACKAGE / "quantities.py"]


def test_a_label_inside_a_sentence_keeps_its_abbreviation():
  names = {one.key: one.name for one in quantities.TABLE}
  assert names["zero_vector"] == "zero vector" and names["loss_own"] == "AV loss, own vector"


def test_numbers_come_back_in_the_tables_order_whatever_their_order_in_the_file():
  metrics = {}
  for key in ("tokens_mean", "greedy", "parse_rate", "round_trip", "loss_own"):
    quantities.put(metrics, key, 0.5)
  assert metrics == {
    "tokens_mean": 0.5,
    "fve": {"greedy": 0.5, "round_trip": 0.5},
    "parse_rate": 0.5,
    "av": {"loss_own": 0.5},
  }
  found = quantities.measured(metrics, "result", "loss", "number")
  assert [one.quantity.key for one in found] == [
    "round_trip",
    "greedy",
    "loss_own",
    "parse_rate",
    "tokens_mean",
  ]


def test_what_is_no_number_is_not_found_and_a_broken_interval_hides_no_number():
  quantity = quantities.QUANTITIES["greedy"]
  for value in (None, "x", float("nan"), {"ci95": [0, 1]}, {"value": float("inf")}):
    assert quantities.found(quantity, value) is None
  found = quantities.found(quantity, {"value": 0.2, "ci95": [0.1, float("nan")], "n": 3})
  assert (found.value, found.ci95, found.n) == (0.2, None, 3)


def test_what_the_table_does_not_know_keeps_its_kind_and_is_named_by_its_key():
  metrics = {"controls": {"new_one": 0.1}, "more": {"a_b": 1.0}, "cosine": {"greedy": 0.9}}
  controls, numbers = (quantities.unknown(metrics, kind) for kind in ("control", "number"))
  assert [(one.quantity.label, one.quantity.kind) for one in controls] == [("New one", "control")]
  assert [one.quantity.label for one in numbers] == ["More, a b"]


def test_the_javascript_and_the_template_hold_no_label():
  folder = PACKAGE / "evaluation" / "report" / "templates"
  written = "".join((folder / name).read_text() for name in ("report.js", "report.html"))
  labels = [one.label for one in quantities.TABLE if len(one.label.split()) > 1]
  assert not [label for label in labels if re.search(rf"\b{re.escape(label)}\b", written)]
