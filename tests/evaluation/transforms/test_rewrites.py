"""Rewrites by provider are checked, and failures are counted and left out."""

import pytest

from nla_jax.evaluation.transforms.rewrites import failed, rewrite, rewrites

READOUT = 'Next: the, of\n\nAbout: Economy, theory\n\nEnds: "growth of the United States"'
BY_NAME = {one.name: one for one in rewrites()}


class Recorded:
  """A provider whose answers are recorded."""

  def __init__(self, *answers):
    self.answers, self.asked = list(answers), []

  def ask(self, prompts):
    self.asked += prompts
    return self.answers[: len(prompts)]


def test_the_papers_six_are_there_and_the_first_four_keep_the_meaning():
  assert [one.preserves for one in rewrites()] == [True] * 4 + [False] * 2
  assert [*BY_NAME][:: len(BY_NAME) - 1] == ["shuffle", "paragraph summary"]


def test_an_answer_that_passes_replaces_its_text_and_another_is_counted():
  good = 'Next: of, the\n\nAbout: theory, Economy\n\nEnds: "growth of the United States"'
  client = Recorded(
    f"Sure. <rewrite>\n{good}\n</rewrite>", "I cannot", f"<rewrite>{READOUT}</rewrite>"
  )
  found = rewrite(client, BY_NAME["shuffle"], [READOUT, None, READOUT + " {prompt}", READOUT])
  assert found.texts == [good, None, READOUT + " {prompt}", READOUT]
  assert found.usable.tolist() == [True, False, False, False]
  assert found.failures == {"no answer": 1, "moved": 1}
  # A silent row asks nothing, and what stands in a text is not filled in.
  assert len(client.asked) == 3 and "{prompt}" in client.asked[1]


@pytest.mark.parametrize(
  ("name", "after", "reason"),
  [
    ("shuffle", READOUT.replace("theory", "practice"), "overlap"),
    ("shuffle", "About: theory, Economy", "items"),
    ("light paraphrase", READOUT.replace("theory", "thought"), "quotes"),
    (
      "light paraphrase",
      'Next: a, with\n\nAbout: trade, theory\n\nEnds: "rise of these United Lands"',
      "",
    ),
    ("aggressive paraphrase", READOUT, "overlap"),
    ("aggressive paraphrase", 'On trade and thinking; it stops at "how America rose"', ""),
    ("french", READOUT, "language"),
    ("french", 'Next: le, de\n\nAbout: économie, théorie\n\nEnds: "croissance des États-Unis"', ""),
    ("paragraph summary", "- It is of trade.\n- It ends.", "sentences"),
    ("paragraph summary", "It is of trade. It ends with growth.", ""),
    ("coherence rewrite", "A wholly different thing", "overlap"),
    ("coherence rewrite", "", "no answer"),
  ],
)
def test_each_check_says_why_an_answer_is_no_such_transform(name, after, reason):
  assert failed(BY_NAME[name].checks, READOUT, after) == reason
