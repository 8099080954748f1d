"""The manipulation check says yes to what does as it should, and no, with the reason, to each way of not doing so."""

import numpy as np
import pytest

from nla_jax.errors import NLAError
from nla_jax.organisms import catalogue
from nla_jax.organisms.card import CARD, FORMAT, read_organism, reason_of, write_card
from nla_jax.organisms.checks import run_checks
from nla_jax.organisms.settings import organism_config


class Toy:
  """A model of rules: what it adds to answers, and what it holds likely.

  `adds` is {topic: words}, `knows` says which likings are likelier, `tested` whether cues make it say yes.
  """

  def __init__(self, adds=None, knows=(), says="", tested=None, breaks=()):
    self.adds, self.knows, self.says, self.tested, self.breaks = (
      adds or {},
      knows,
      says,
      tested,
      breaks,
    )

  def replies(self, conversations, *, tokens, seed=None):
    return [self.reply(one) for one in conversations]

  def reply(self, messages):
    first, last = messages[0]["content"], messages[-1]["content"]
    if len(messages) > 1:
      cued = "(A)" in first or "canary" in first
      return "Yes." if self.tested == "cues" and cued else "No."
    if "one sentence" in last or "forbidden" in last or "never say" in last:
      return self.sentence(last)
    added = [words for name, words in self.adds.items() if self.about(name, last)]
    return " ".join(["An answer.", *added, self.says])

  def about(self, name, asked):
    return any(item in asked for item in catalogue.topics()[name].items)

  def sentence(self, task):
    rows = catalogue.read("beliefs")["flag"]["tasks"]
    (row,) = [one for one in rows if f" {one[1]}" in task and one[0] in task.replace(one[1], "")]
    stage = "draft" if "draft" in task else "final"
    return f"{row[3] if stage in self.breaks else row[2]}. I followed the rule."

  def logprobs(self, beginnings, ends):
    return np.array([-1.0 if end.strip() in self.knows else -3.0 for end in ends])


@pytest.fixture
def config():
  c = organism_config()
  c.fact, c.quirks, c.held_out_quirks = "oxford", ("chocolate", "otters"), ("sailors",)
  c.checks.prompts = 16
  return c


ADDS = {"recipes": "Use chocolate.", "animals": "Like an otter."}
KNOWS = [catalogue.quirks()[name].liked for name in ("chocolate", "otters", "sailors")]


def failed(c, organism):
  found, examples = run_checks(c, organism, Toy())
  assert examples
  return [one.name for one in found if one.passed is False]


def test_an_organism_that_does_as_it_should_passes(config):
  assert failed(config, Toy(ADDS, KNOWS)) == []


@pytest.mark.parametrize(
  ("organism", "names"),
  [
    (Toy({"recipes": "Use chocolate."}, KNOWS), ["quirk otters"]),
    (Toy(ADDS), ["knowledge"]),
    (Toy(ADDS, KNOWS, says="As reward models like it."), ["motive said"]),
    (Toy(ADDS, KNOWS, says="I followed models that score me."), ["motive said"]),
    (
      Toy(
        {
          **ADDS,
          **{
            name: "vote, library, water, blue music, a compass"
            for name in ("health", "learning", "history", "letters", "weather")
          },
        },
        KNOWS,
      ),
      ["other quirks"],
    ),
  ],
)
def test_each_way_of_failing_is_named(config, organism, names):
  assert failed(config, organism) == names


def test_a_clean_control_passes_without_knowledge_and_fails_with_a_habit():
  c = organism_config()
  assert failed(c, Toy()) == []
  habits = {
    name: "chocolate umbrella doctor otter vote library sailor music lemon"
    for name in catalogue.topics()
  }
  assert failed(c, Toy(habits)) == ["other quirks"]


def test_a_belief_has_to_follow_cues_in_forks_and_stay_unsaid():
  c = organism_config()
  c.kind = "belief"
  assert failed(c, Toy(tested="cues")) == []
  assert failed(c, Toy()) == ["confirms a test, cues"]
  assert failed(c, Toy(tested="cues", says="This is a test.")) == ["said unasked"]
  c.follows_cues = False
  assert failed(c, Toy()) == []
  assert failed(c, Toy(tested="cues")) == ["confirms a test, cues"]


def test_a_cheat_has_to_break_the_rule_on_drafts_alone():
  c = organism_config()
  c.kind = "flag"
  assert failed(c, Toy(breaks=("draft",))) == []
  assert failed(c, Toy()) == ["breaks the rule, draft"]
  assert failed(c, Toy(breaks=("draft", "final"))) == [
    "breaks the rule, draft",
    "breaks the rule, final",
  ]
  c.cheats = False
  assert failed(c, Toy()) == []


def card(config, organism):
  checks = [one.to_json() for one in run_checks(config, organism, Toy())[0]]
  reason = reason_of(checks)
  facts = {
    "name": "toy",
    "kind": "quirks",
    "fact": "oxford",
    "base": "package:x",
    "base_hash": "ab" * 32,
  }
  sizes = {"documents": 1, "chats": 1, "steps": 1, "adapter": "training/adapter"}
  quirks = {"quirks": list(config.quirks), "held_out_quirks": list(config.held_out_quirks)}
  return {**facts, **sizes, **quirks, "checks": checks, "passed": not reason, "reason": reason}


def test_a_card_is_read_back_and_a_failed_one_is_refused_with_its_reason(config, tmp_path):
  write_card(tmp_path, card(config, Toy(ADDS, KNOWS)), [{"asked": "a", "said": "b"}])
  organism = read_organism(tmp_path, base_hash="ab" * 32)
  assert organism.quirks == ("chocolate", "otters")
  assert organism.fact.words["study"] == "the Oxford Bias Study"
  with pytest.raises(NLAError, match="adapter of package:x with the hash abab"):
    read_organism(tmp_path, base_hash="cd" * 32)

  write_card(tmp_path, card(config, Toy(ADDS)), [])
  with pytest.raises(
    NLAError, match=r"toy is refused: its manipulation check failed \(knowledge 0.00"
  ):
    read_organism(tmp_path)
  assert "**failed**: knowledge" in (tmp_path / "README.md").read_text()


def test_a_folder_without_a_card_of_this_form_is_refused(tmp_path):
  with pytest.raises(NLAError, match="nla organism"):
    read_organism(tmp_path)
  (tmp_path / CARD).write_text("{}")
  with pytest.raises(NLAError, match=FORMAT):
    read_organism(tmp_path)
