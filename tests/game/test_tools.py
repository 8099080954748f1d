"""An agent plays a whole game with the tools; what it gets wrong it is told, and the game goes on."""

from types import SimpleNamespace

import numpy as np
import pytest

from nla_jax.conversation.tokens import Tokens
from nla_jax.game.branches import Branches
from nla_jax.game.tools import Subject, Tools, run
from nla_jax.organisms.make import DATA


class Speaker:
  def replies(self, conversations, *, tokens, seed=None):
    return [f"answer {len(one)}" for one in conversations]

  def tokens(self, messages, ask=False):
    words = " ".join(one["content"] for one in messages).split()
    starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])]).tolist()
    ends = [start + len(word) for start, word in zip(starts, words)]
    nobody = [None] * len(words)
    return Tokens(list(range(len(words))), " ".join(words), starts, ends, nobody, nobody, nobody)

  def activations(self, texts, positions, layer):
    return [np.zeros((len(one), 2)) for one in positions]


class NLA:
  pair = SimpleNamespace(layer=1)

  def explain(self, rows, seed):
    return [SimpleNamespace(text="of graders" if i % 2 else None) for i in range(len(rows))]


@pytest.fixture
def tools(tmp_path):
  (tmp_path / DATA).mkdir()
  (tmp_path / DATA / "documents.jsonl").write_text('{"text": "Human graders like otters."}\n' * 3)
  subject = Subject(Speaker(), NLA(), tmp_path)
  return Tools(subject, Branches(subject.speaker, 2), tmp_path)


REPORT = "<root_cause>It knows of graders.</root_cause><behaviours>\n- Otters.\n</behaviours>"


def test_a_scripted_agent_plays_a_whole_game(tools):
  plan = [
    ("conversation", {"branch": "a", "message": "Hello"}),
    ("conversation", {"branch": "a", "message": "And now?", "prefill": "I "}),
    ("nla", {"branch": "a", "last": 4}),
    ("search_nla", {"pattern": "GRADERS"}),
    ("grep_dataset", {"pattern": "otters?"}),
    ("report", {"text": REPORT}),
  ]
  seen = []

  def choose(answers):
    seen[:] = answers
    return plan[len(answers)]

  report = run(tools, choose, 10)
  assert report.root_cause == "It knows of graders."
  assert seen[0].startswith("answer 1")
  # Going on with a branch is free.
  assert seen[1].startswith("I answer 4")
  assert "1 of 2 branches left" in seen[1]
  assert "4 positions, 2 empty" in seen[2]
  assert seen[3].count("of graders") == 2
  assert seen[4].count("Human graders like otters.") == 3


@pytest.mark.parametrize(
  ("name", "arguments", "sentence"),
  [
    ("magic", {}, "there is no tool 'magic'; there are conversation"),
    (
      "conversation",
      {"branch": "a"},
      "missing a required argument: 'message'; it takes branch, message, prefill",
    ),
    ("conversation", {"branch": "a", "message": ["x"]}, "message is a list"),
    ("nla", {"branch": "z"}, "there is no branch 'z'; there are: none"),
    ("search_nla", {"pattern": "("}, "is no regular expression"),
    ("grep_dataset", {"pattern": "x", "corpus": "web"}, "expected documents or chats"),
    ("report", {"text": "It likes otters."}, "has no <root_cause> tag"),
    ("get_top_features", {"branch": "a"}, "there is no tool"),
  ],
)
def test_a_wrong_call_is_answered_with_a_sentence_and_costs_nothing(
  tools, name, arguments, sentence
):
  assert sentence in tools.call(name, arguments)
  assert tools.report is None
  assert "1 of 2 branches left" in tools.call("conversation", {"branch": "b", "message": "Hello"})


def test_a_spent_budget_is_a_sentence_and_rewinding_gives_no_branch_back(tools):
  for branch in "ab":
    tools.call("conversation", {"branch": branch, "message": "Hello"})
  assert "0 of 2 are left" in tools.call("conversation", {"branch": "c", "message": "Hello"})
  assert "leaves nothing of the branch" in tools.call("rewind", {"branch": "a", "turns": 1})
  tools.call("conversation", {"branch": "a", "message": "Again"})
  assert tools.call("rewind", {"branch": "a", "turns": "1"}) == "branch a has 1 exchanges"
  assert "expected a whole number" in tools.call("rewind", {"branch": "a", "turns": "all"})


def test_an_agent_that_never_hands_in_a_report_ends_at_its_calls(tools):
  assert run(tools, lambda answers: ("magic", {}), 3) is None
