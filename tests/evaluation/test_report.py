"""The report is safe, complete in one file, and says what speaks against the run."""

import base64
import hashlib
import html.parser
import json
import re

import numpy as np
import pytest

from nla_jax import quantities
from nla_jax.errors import NLAError
from nla_jax.evaluation.report import charts, verdict
from nla_jax.evaluation.report import page as report

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!-- &amp; \u2028 \"'"


def estimate(value, half=0.03, n=400):
  return {"value": value, "ci95": [value - half, value + half], "n": n}


def good_metrics():
  keys = [one.key for one in quantities.TABLE if one.kind == "control"]
  controls = {key: estimate(-0.1 * i) for i, key in enumerate(keys)}
  fve = {
    "round_trip": estimate(0.3),
    "teacher_text": estimate(0.6),
    "round_trip_sft": estimate(0.1),
  }
  av = {"loss_own": 2.1, "loss_shuffled": 2.6}
  return {
    "fve": fve,
    "controls": controls,
    "av": av,
    "parse_rate": 0.98,
    "baseline_variance": 0.45,
    "tokens_mean": 71,
  }


class Page(html.parser.HTMLParser):
  """What a browser would see: every element with its attributes, the text of scripts, and the visible text."""

  def __init__(self, path):
    super().__init__()
    self.elements, self.scripts, self.text, self.inside = [], [], [], None
    self.feed(path.read_text(encoding="utf-8"))
    self.close()

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    self.inside = tag
    if tag == "script":
      self.scripts.append("")

  def handle_endtag(self, tag):
    self.inside = None

  def handle_data(self, data):
    if self.inside == "script":
      self.scripts[-1] += data
    elif self.inside != "style":
      self.text.append(data)

  @property
  def words(self):
    return " ".join(" ".join(self.text).split())


@pytest.fixture
def render(tmp_path):
  return lambda given: Page(report.write_report(tmp_path / "report.html", given))


@pytest.fixture
def hostile_page(render):
  metrics = good_metrics()
  metrics["controls"][HOSTILE] = estimate(0.0)
  metrics[HOSTILE] = 1.0
  keys = ("document", "group", "context_before", "token", "context_after")
  example = {
    **{key: HOSTILE for key in keys},
    "position": 60,
    "texts": {"round_trip": HOSTILE, HOSTILE: HOSTILE},
    "fve": {"round_trip": 0.2},
  }
  step = [{"step": 1, HOSTILE: 2.0}, {"step": 2, HOSTILE: 3.0}]
  given = {
    "title": HOSTILE,
    "config": HOSTILE,
    "run": {"model": HOSTILE, HOSTILE: HOSTILE},
    "metrics": metrics,
    "timing": [{"stage": HOSTILE, "seconds": 3.0}],
    "curves": {"rl": step, HOSTILE: step},
    "examples": [example],
    "definitions": {"round_trip": HOSTILE},
    "examples_note": HOSTILE,
  }
  return render(given), example


def test_hostile_text_becomes_no_element_and_no_attribute(hostile_page):
  page, _ = hostile_page
  tags = [tag for tag, _ in page.elements]
  assert tags.count("script") == 2 and "img" not in tags
  assert not [
    name for _, attributes in page.elements for name in attributes if name.startswith("on")
  ]
  assert page.words.count("alert(1)") >= 8  # shown as text, not dropped


def test_examples_survive_the_embedding_unchanged(hostile_page):
  page, example = hostile_page
  assert json.loads(page.scripts[0]) == [example]


def test_only_the_pages_own_script_may_run_and_nothing_may_be_fetched(hostile_page):
  page, _ = hostile_page
  policy = next(a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
  digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
  assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
  addresses = [a[name] for _, a in page.elements for name in ("src", "href", "action") if name in a]
  assert addresses and all(address.startswith("#") for address in addresses)


def test_the_script_writes_text_and_never_markup():
  script = report._template("report.js")
  assert not re.search(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", script
  )


def test_numbers_that_json_cannot_hold_become_null_and_half_characters_are_replaced(render):
  examples = [
    {
      "fve": {"greedy": float("nan")},
      "position": np.int64(7),
      "token": "\ud83d",
      "cosine": np.float32(0.5),
    }
  ]
  page = render({"metrics": good_metrics(), "examples": examples})
  assert json.loads(page.scripts[0]) == [
    {"fve": {"greedy": None}, "position": 7, "token": "?", "cosine": 0.5}
  ]


def test_a_good_run_is_called_good_with_its_interval(render):
  words = render({"metrics": good_metrics()}).words
  assert "recovers 30 % of the variance" in words and "95 % interval 0.27 to 0.33" in words
  assert "Every control that was run scores clearly lower" in words and "Not run" not in words


def texts(metrics):
  rows = verdict.fve_rows(metrics, {})
  head = verdict.headline(metrics, rows)
  return head["sentence"], {f["text"]: f["tone"] for f in head["findings"]}


def tone_of(found, words):
  matching = [tone for text, tone in found.items() if words in text]
  assert len(matching) == 1, (words, found)
  return matching[0]


def test_a_control_that_reaches_the_round_trip_is_in_the_headline():
  metrics = good_metrics()
  metrics["controls"]["retrieval"] = estimate(0.35)
  assert tone_of(texts(metrics)[1], "nearest-neighbour retrieval scores 0.35, no less") == "bad"
  metrics["controls"]["retrieval"] = estimate(0.26)
  assert tone_of(texts(metrics)[1], "Not shown to be above every control") == "warn"


def test_a_wide_interval_of_a_weaker_control_also_counts():
  metrics = good_metrics()
  metrics["controls"]["empty_text"] = estimate(-0.3, half=0.8)
  assert tone_of(texts(metrics)[1], "Not shown to be above every control") == "warn"


def test_on_the_same_activations_the_paired_intervals_decide():
  metrics = good_metrics()
  metrics["controls"]["retrieval"] = estimate(0.28)  # within the round trip's own interval
  metrics["above_control"] = {key: estimate(0.02, half=0.01) for key in metrics["controls"]}
  found = texts(metrics)[1]
  assert tone_of(found, "Every control that was run scores lower on the same activations") == "good"
  metrics["above_control"]["zero_vector"] = estimate(0.02, half=0.03)
  assert tone_of(texts(metrics)[1], "Not shown to be above every control") == "warn"


def test_without_an_interval_nothing_is_called_shown():
  metrics = good_metrics()
  metrics["controls"] = {"shuffled_vector": -3.0}
  _, found = texts(metrics)
  assert tone_of(found, "not shown that the words depend on the vector") == "bad"
  assert tone_of(found, "intervals overlap or are missing") == "warn"
  metrics["fve"]["round_trip"] = 0.3
  assert "there is no interval" in texts(metrics)[0] and "good" not in texts(metrics)[1].values()


def test_the_gain_of_rl_is_judged_by_its_paired_interval_and_is_not_drawn_as_an_fve(render):
  metrics = good_metrics()
  metrics["fve"] |= {
    "round_trip_sft": estimate(0.27, half=0.1),
    "gain_of_rl": estimate(0.03, half=0.01),
  }
  assert tone_of(texts(metrics)[1], "Reinforcement learning raised FVE from 0.27 to 0.30") == "good"
  metrics["fve"]["gain_of_rl"] = estimate(0.03, half=0.05)
  assert (
    tone_of(texts(metrics)[1], "Not clearly better than before reinforcement learning") == "warn"
  )
  assert "gain_of_rl" not in [row.quantity.key for row in verdict.fve_rows(metrics, {})]
  assert "Gain of RL 0.030 −0.020 to 0.080" in render({"metrics": metrics}).words


def test_a_cosine_is_shown_only_beside_its_fve(render):
  words = render(
    {"metrics": {**good_metrics(), "cosine": {"round_trip": 0.877, "unmeasured": 0.988}}}
  ).words
  assert "0.270 to 0.330 0.877" in words and "0.988" not in words


def test_differences_on_the_same_activations_have_a_table_that_says_what_they_are(render):
  metrics = good_metrics()
  metrics["above_control"] = {
    "retrieval": estimate(0.02, half=0.01),
    "zero_vector": estimate(0.4, half=0.5),
  }
  words = render({"metrics": metrics}).words
  assert (
    "The round trip above each control" in words
    and "what is hard about a document cancels" in words
  )
  assert "Nearest-neighbour retrieval 0.020 0.010 to 0.030 400 shown" in words
  assert "Zero vector 0.400 −0.100 to 0.900 400 not shown" in words
  assert "Above control" not in words
  assert "hard about a document cancels" not in render({"metrics": good_metrics()}).words


def test_the_round_trip_under_the_ar_before_rl_is_shown_only_when_it_was_measured(render):
  metrics, label = good_metrics(), quantities.QUANTITIES["fixed_critic"].label
  assert label not in render({"metrics": metrics}).words
  metrics["fve"]["fixed_critic"] = estimate(0.21)
  words = render({"metrics": metrics}).words
  assert re.search(re.escape(label) + r" 0\.210 0\.180 to 0\.240", words)


def test_numbers_without_a_place_in_the_table_are_counted_and_folded_away(render):
  metrics = {**good_metrics(), "steganography": {f"key_{i}": 0.001 * i for i in range(40)}}
  metrics["controls"]["x" * 300] = estimate(0.1)
  page = render({"metrics": metrics})
  assert "40 more, which this report has no words for" in page.words
  assert "Steganography, key 39" in page.words
  labels = re.findall(r">(X?x+…?)<", str(charts.forest([drawn("x" * 300)])))
  assert labels == ["x" * 31 + "…"]


def with_parts():
  """Two sources, two ranges of positions, and the best of 1 and 2."""
  metrics, fixed = good_metrics(), {"fixed_critic": estimate(0.25)}

  def curve(values):
    return {
      name: {"fve": {"round_trip": estimate(value)}, "rows": 10, "groups": 4}
      for name, value in values.items()
    }

  talk = {
    **good_metrics(),
    "above_control": {"retrieval": estimate(0.111)},
    "rows": 150,
    "groups": 12,
    "by_position": curve({"8-16": 0.123, "64+": 0.456}),
  }
  metrics["by_source"] = {
    "article": {"fve": {"round_trip": estimate(0.777), **fixed}, "rows": 250, "groups": 30},
    "talk": talk,
  }
  metrics["by_position"] = curve({"8-16": 0.2, "16-32": 0.3, "64+": 0.4})
  metrics["by_n"] = {
    str(n): {"fve": {"best_of": estimate(0.3 + n / 10), "best_of_fixed": estimate(0.321)}}
    for n in (1, 2)
  }
  return metrics


def test_sources_have_a_column_each_with_their_own_numbers(render):
  words = render({"metrics": with_parts()}).words
  assert "article 250 activations, 30 document groups talk 150 activations" in words
  assert "Round trip, sampled 0.777 0.75 to 0.81 0.300 0.27 to 0.33" in words
  assert "Round trip, AR before RL 0.250 0.22 to 0.28 —" in words
  assert "The round trip above article 250" in words
  assert "Nearest-neighbour retrieval — 0.111 0.08 to 0.14" in words


def test_the_curve_by_position_has_every_range_in_order_and_a_gap_where_there_is_none(render):
  page = render({"metrics": with_parts()})
  assert "Round trip, sampled 8–16 16–32 64+ all 0.200 0.17 to 0.23 0.300" in page.words
  assert "talk 0.123 0.09 to 0.15 — 0.456" in page.words
  labels = [attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg"]
  assert labels.count("Round trip, sampled by position") == 1


def test_the_chart_of_ranges_draws_each_value_and_interval_in_its_place():
  svg = str(charts.ranges(["8-16", "16-32"], {"a": [(0, 0.2, (0.1, 0.3)), (1, 0.4, None)]}, "x"))
  first, second = circles(svg)
  assert first < second and svg.count("whisker s1") == 1 and "8–16" in svg
  heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
  assert heights[1] < heights[0]


def test_no_line_is_drawn_over_a_range_that_was_not_measured():
  names = ["8-16", "16-32", "32-64"]
  whole = str(charts.ranges(names, {"a": [(i, 0.2, None) for i in range(3)]}, "x"))
  gap = str(charts.ranges(names, {"a": [(0, 0.2, None), (2, 0.2, None)]}, "x"))
  assert whole.count("line s1") == 2 and "line s1" not in gap and len(circles(gap)) == 2


def test_n_stands_beside_every_best_of(render):
  words = render({"metrics": with_parts()}).words
  assert "FVE n = 1 n = 2 Round trip, best of n 0.400 0.37 to 0.43 0.500" in words
  assert "Best of n, AR before RL 0.321" in words


def test_without_parts_the_page_says_nothing_of_them(render):
  words = render({"metrics": good_metrics()}).words
  assert "By source" not in words and "By position" not in words and "Best of n" not in words


def test_a_hostile_source_stays_text(render):
  metrics = with_parts()
  metrics["by_source"][HOSTILE] = metrics["by_source"].pop("talk")
  page = render({"metrics": metrics})
  assert [tag for tag, _ in page.elements].count("script") == 2
  assert page.words.count("alert(1)") >= 3


def test_a_gain_that_the_fixed_ar_does_not_see_is_in_the_headline():
  metrics = good_metrics()
  metrics["fve"] |= {"fixed_critic": estimate(0.12), "gain_of_rl_fixed": estimate(0.02, half=0.01)}
  assert tone_of(texts(metrics)[1], "The AV's words gained by themselves") == "good"
  metrics["fve"]["gain_of_rl_fixed"] = estimate(0.02)
  assert tone_of(texts(metrics)[1], "Not shown that the AV's words gained") == "warn"


def drawn(label):
  return {"label": label, "kind": "control", "value": 0.1, "ci95": None}


def test_every_text_of_an_example_is_headed_as_the_table_says(render):
  page = render({"metrics": good_metrics(), "examples": [{"texts": {}, "fve": {}}]})
  cards = next(attributes for _, attributes in page.elements if attributes.get("id") == "cards")
  headings = dict(json.loads(cards["data-texts"]))
  assert headings == {one.key: one.text for one in quantities.TABLE if one.text}
  assert next(iter(headings)) == "round_trip" and headings["round_trip_sft"] == "Before RL"


def test_for_scale_the_teachers_text_is_in_the_headline():
  assert tone_of(texts(good_metrics())[1], "the teacher's text gives 0.60") == "plain"


def test_words_that_ignore_the_vector_are_in_the_headline():
  metrics = good_metrics()
  metrics["controls"]["shuffled_vector"] = estimate(0.29)
  metrics["av"]["loss_shuffled"] = 2.105
  _, found = texts(metrics)
  assert tone_of(found, "not shown that the words depend on the vector") == "bad"
  assert tone_of(found, "writes without looking") == "bad"


@pytest.mark.parametrize(
  "value, half, words",
  [
    (-0.2, 0.05, "Below zero"),
    (0.02, 0.05, "the interval reaches zero"),
    (0.3, 0.05, "1 is a perfect rebuild"),
  ],
)
def test_the_headline_claims_no_more_than_the_interval(value, half, words):
  metrics = good_metrics()
  metrics["fve"]["round_trip"] = estimate(value, half)
  assert words in texts(metrics)[0]


def test_missing_controls_few_rows_and_unparsed_text_are_in_the_headline():
  metrics = {"fve": {"round_trip": {"value": 0.3, "ci95": None, "n": 12}}, "parse_rate": 0.8}
  _, found = texts(metrics)
  assert tone_of(found, "Controls that were not run: shuffled vector") == "warn"
  assert tone_of(found, "Only 12 activations") == "warn"
  assert tone_of(found, "20 % of the explanations did not parse") == "warn"
  assert tone_of(found, "has no interval") == "warn"


def test_without_a_round_trip_nothing_is_claimed(render):
  words = render({"metrics": {"fve": {"teacher_text": estimate(0.6)}}}).words
  assert "The round trip was not measured" in words and "0.60" in words


def test_an_empty_evaluation_still_renders_and_says_what_is_missing(render):
  words = render({"metrics": {}}).words
  for missing in (
    "No FVE was measured",
    "No curves were recorded",
    "No examples were given",
    "No per-activation",
  ):
    assert missing in words


def test_inflated_fve_stands_under_its_own_name_with_the_reason(render):
  words = render({"metrics": {**good_metrics(), "fve_inflated": 0.4567}}).words
  assert re.search(r"FVE, inflated definition 0\.457 .*mean scaled back to unit norm", words)
  assert words.count("0.457") == 1


def test_sparse_and_missing_curves_are_drawn_or_named(render):
  rl = [
    {"step": i, "reward": -0.5, "note": "x", **({"fve": 0.1 * i} if i % 5 == 0 else {"fve": None})}
    for i in range(1, 16)
  ]
  page = render(
    {"metrics": good_metrics(), "curves": {"rl": rl, "ar_sft": [{"step": 3, "loss": float("nan")}]}}
  )
  assert (
    "Not recorded: KL to the SFT verbalizer, entropy, length in tokens, parse rate." in page.words
  )
  labels = [attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg"]
  assert labels.count("Reward") == 1 and labels.count("FVE") == 1 and "Loss" not in labels
  assert (
    len(
      re.findall(
        r'class="point s1"', str(charts.lines({"FVE": [(5, 0.5), (10, 1.0), (15, 1.5)]}, "FVE"))
      )
    )
    == 3
  )


def test_a_long_curve_is_cut_to_runs_with_their_range():
  drawn = str(charts.lines({"loss": [(i, np.sin(i)) for i in range(5000)]}, "Loss"))
  assert 'class="band s1"' in drawn and len(drawn) < 20_000
  assert 'class="band' not in str(charts.lines({"loss": [(1, 2.0)]}, "Loss"))


def circles(drawn):
  return [float(x) for x in re.findall(r'<circle cx="([-\d.]+)"', str(drawn))]


def test_the_forest_is_ordered_as_its_values_and_far_values_become_arrows():
  row = lambda value: {
    "label": "x",
    "kind": "control",
    "value": value,
    "ci95": (value - 0.1, value + 0.1),
  }
  drawn = charts.forest([row(0.9), row(0.1), row(-0.5), row(-7.0)])
  places = circles(drawn)
  assert len(places) == 3 and places == sorted(places, reverse=True)
  assert str(drawn).count("◀") == 1 and "−7.00" in drawn


def test_per_activation_charts_leave_out_failed_rows(render):
  rows = {
    "round_trip": [0.1, None, 0.3, float("nan")],
    "teacher_text": [0.2, 0.3, 0.5, 0.1],
    "position": [50, 51],
  }
  page = render({"metrics": good_metrics(), "rows": rows})
  assert "of 2 activations. The FVE" in page.words and "Against the position" not in page.words
  assert sum(attributes.get("class") == "mote" for _, attributes in page.elements) == 2


def test_a_histogram_counts_every_value_even_beyond_its_axis():
  values = np.array([*np.linspace(0.2, 0.4, 199), -50.0])
  drawn = str(charts.histogram({"round trip": values}, "FVE"))
  heights = [float(y) for y in re.findall(r"L44\.0 ([\d.]+)", drawn)]
  assert heights and min(heights) < 240.0  # the first bin, at the left edge, is not empty


@pytest.mark.parametrize(
  "value, digits, text",
  [
    (-0.254, 2, "−0.25"),
    (71.4, 3, "71.40"),
    (12345.6, 2, "12,346"),
    (2e-5, 2, "2e−05"),
    (0.0, 2, "0.00"),
  ],
)
def test_numbers_are_written_for_people(value, digits, text):
  assert charts.number(value, digits) == text


def test_a_report_needs_metrics_and_a_folder(tmp_path):
  with pytest.raises(NLAError, match="metrics"):
    report.write_report(tmp_path / "report.html", {"title": "x"})
  with pytest.raises(NLAError, match="does not exist"):
    report.write_report(tmp_path / "missing" / "report.html", {"metrics": {}})


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
  path = report.write_report(tmp_path / "report.html", {"metrics": {}})
  before = path.read_text(encoding="utf-8")

  def refuse(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(report.os, "replace", refuse)
  with pytest.raises(OSError, match="No space"):
    report.write_report(path, {"metrics": good_metrics()})
  assert path.read_text(encoding="utf-8") == before
  assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
