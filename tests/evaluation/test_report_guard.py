"""No chart and no section costs the page: a sentence with the error stands in its place."""

import pytest

from nla_jax.evaluation.report import charts, parts, sections, verdict
from nla_jax.evaluation.report import page as report

SPANS = (1e-10, 1e-11, 3.4e-12, 1e-12, 1e-13, 1e-300, 5e-324, 1.0, 1e12, 1e308)


def full_report(**changes) -> dict:
  estimate = {"value": 0.3, "ci95": [0.2, 0.4], "n": 40}
  step = {"step": 1, "loss": 0.5, "kl": 3.4e-12}
  return {
    "metrics": {
      "fve": {"round_trip": estimate},
      "by_position": {"0-8": {"fve": {"round_trip": estimate}}},
    },
    "curves": {"rl": [step, {**step, "step": 2}]},
    "rows": {"round_trip": [0.1, 0.2, 0.4], "position": [1, 2, 3], "norm": [1.0, 2.0, 3.0]},
    "timing": [{"stage": "rl", "seconds": 3.0}],
    "examples": [{"document": "d"}],
    **changes,
  }


def page_of(tmp_path, given) -> str:
  return report.write_report(tmp_path / "report.html", given).read_text()


@pytest.mark.parametrize("low", [0.0, -1.0, 1e6, 1e300])
@pytest.mark.parametrize("span", SPANS)
def test_an_axis_of_every_span_has_marks_with_short_labels(low, span):
  points = [(0.0, low), (1.0, low + span)]
  drawn = charts.lines({"a": points}, "a curve")
  labels = [part.split("<")[0].split(">")[1] for part in drawn.split("<text")[1:]]
  assert len(labels) >= 3 and all(len(label) <= 12 for label in labels)


@pytest.mark.parametrize("span", SPANS[:6])
def test_marks_of_a_tiny_span_are_told_apart(span):
  marks = charts.ticks(0.0, span)
  assert len(marks) >= 3 and len({charts._tick_label(mark, marks) for mark in marks}) == len(marks)


def test_numbers_at_the_end_of_what_a_float_holds_are_drawn(tmp_path):
  wild = [{"step": i, "loss": value} for i, value in enumerate((1e308, -1e308, 5e-324, 0.0))]
  page = page_of(tmp_path, full_report(curves={"av_sft": wild, "rl": wild[2:]}))
  assert "could not be" not in page


@pytest.mark.parametrize(
  ("module", "name"),
  [
    *((charts, name) for name in ("lines", "forest", "histogram", "scatter", "ranges")),
    (charts, "stacked_bar"),
    *((sections, name) for name in ("curves", "row_charts", "timing")),
    *((parts, name) for name in ("alone", "positions", "by_n")),
    *((verdict, name) for name in ("headline", "fve_rows")),
    *((report, name) for name in ("_results", "_tiles", "embed_json")),
  ],
)
def test_whatever_fails_is_replaced_by_a_sentence_with_its_error(
  module, name, tmp_path, monkeypatch
):
  whole = page_of(tmp_path, full_report())
  assert "could not be" not in whole

  def fails(*arguments, **options):
    raise ValueError("math <domain> error\nand more")

  monkeypatch.setattr(module, name, fails)
  page = page_of(tmp_path, full_report())
  assert "ValueError: math &lt;domain&gt; error." in page and "<domain>" not in page

  # All other sections are there.
  assert page.count("<h2>") == whole.count("<h2>")
  assert page.rstrip().endswith("</html>")


def test_half_a_character_in_a_name_costs_nothing(tmp_path):
  page = page_of(tmp_path, full_report(title="run \ud83d", run={"corpus": "caf\udce9.txt"}))
  assert "caf?.txt" in page
