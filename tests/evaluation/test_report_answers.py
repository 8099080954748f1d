"""The report shows a finding: its table, its gates, its figure, its examples, and what was left out."""

from support.known_pair import KnownNLA, write_store

from nla_jax.evaluation import evaluate
from nla_jax.evaluation.findings import Finding, Gate, Score, to_json, void
from nla_jax.evaluation.report import answers, page

FINDING = Finding(
  question="Do the words say what comes next?",
  verdict="They do not, as far as <script>this</script> shows.",
  unit="share of 1",
  scores=(
    Score("explanation", "hard, target", 0.5, (0.4, 0.6), 50, 0.1),
    Score("shuffled", "hard, target", 0.11, None, 50, 0.1),
    Score("explanation", void("hard, rules"), 0.9, (0.8, 1.0), 40, 0.25),
    Score("shuffled", void("hard, rules"), 0.5, (0.4, 0.6), 48, 0.5),
  ),
  gates=(Gate("skyline", False, "0.6 of 1"), Gate("shuffled at chance", True, "0.11")),
  curves={"explanation": [(8.0, 0.4), (4.0, 0.2)], "nothing": []},
  axes=("tokens of the explanation", "accuracy"),
  examples=({"text": "a <b>town</b>", "options": ["x", "y"], "right": True},),
)


def test_a_section_has_rows_columns_chance_and_gates():
  (found,) = answers.answers({"suites": {"suffix_prediction": to_json(FINDING), "broken": 3}})
  assert found["name"] == "Suffix prediction"
  (table,) = found["tables"]
  assert [(c["name"], c["void"], c["n"]) for c in table["columns"]] == [
    ("hard, target", False, "n = 50"),
    ("hard, rules (void)", True, "n = 40 to 48"),
  ]
  assert [row["label"] for row in table["rows"]] == ["explanation", "shuffled", "chance"]
  cells = [[(cell["value"], cell["note"]) for cell in row["cells"]] for row in table["rows"]]
  # The first column has one chance, at the foot; the rows of the second differ in theirs.
  assert cells[0] == [("0.500", "0.40 to 0.60"), ("0.900", "0.80 to 1.00, chance 0.25")]
  assert cells[1] == [("0.110", "no interval"), ("0.500", "0.40 to 0.60, chance 0.50")]
  assert cells[2] == [("0.100", ""), ("—", "")]
  assert found["legend"] == ["explanation"]
  assert "tokens of the explanation" in found["figure"] and "accuracy" in found["figure"]
  assert found["examples"] == [[("text", "a <b>town</b>"), ("options", "x · y"), ("right", "yes")]]


def test_columns_of_other_rows_are_a_table_of_their_own():
  cells = [("a", "x"), ("b", "x"), ("a", "y"), ("c", "z"), ("a", "v"), ("c", "v"), ("b", "w")]
  scores = tuple(Score(row, column, 0.5, None, 1) for row, column in cells)
  assert answers.blocks(scores) == [["x", "y", "w"], ["z"], ["v"]]
  (found,) = answers.answers({"suites": {"one": to_json(FINDING._replace(scores=scores))}})
  labels = [[row["label"] for row in table["rows"]] for table in found["tables"]]
  assert labels == [["a", "b"], ["c"], ["a", "c"]]


def test_the_page_shows_it_and_nothing_of_it_is_markup(tmp_path):
  found = evaluate(KnownNLA(), write_store(tmp_path / "store"), bootstrap_samples=20).metrics
  plain = page.write_report(tmp_path / "plain.html", {"metrics": found}).read_text()
  assert 'id="suites"' not in plain

  found |= {
    "suites": {"suffix_prediction": to_json(FINDING)},
    "suites_left_out": {"retention": "wordnet is not installed"},
  }
  text = page.write_report(tmp_path / "report.html", {"metrics": found}).read_text()
  for part in (
    "Suffix prediction",
    "&lt;script&gt;this&lt;/script&gt;",
    "a &lt;b&gt;town&lt;/b&gt;",
    "Failed: skyline (0.6 of 1)",
    "Passed: shuffled at chance",
    "The suite retention was left out: wordnet is not installed.",
  ):
    assert part in text
  assert "could not be" not in text.split('id="suites"')[1].split('id="curves"')[0]
