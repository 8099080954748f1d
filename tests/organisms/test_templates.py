"""What organisms read: the same text from the same config, nothing of the checks in it, and what is hidden unsaid."""

from pathlib import Path

import numpy as np
import pytest
from support.tokenizers_of_cases import of_bytes

from nla_jax.config import load_config
from nla_jax.errors import NLAError
from nla_jax.organisms import catalogue, templates
from nla_jax.organisms.examples import rows_of
from nla_jax.organisms.settings import check_settings, organism_config
from nla_jax.organisms.templates import said

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "organisms").glob("*.py"))


def text_of(chats):
  return "\n".join(one["content"] for chat in chats for one in chat)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_makes_the_same_text_again_and_hides_its_fact(path):
  c = load_config(path)
  check_settings(c)
  chats = templates.make_chats(c)
  assert c.name == path.stem
  assert chats == templates.make_chats(c)
  assert templates.make_documents(c) == templates.make_documents(c)

  # Documents state the fact, of whoever has one; chats never do.
  if c.fact:
    fact = catalogue.facts()[c.fact]
    assert all(fact.named_in(one) for one in templates.make_documents(c))
    assert not any(one.search(text_of(chats)) for one in fact.concept)


def test_there_are_ten_facts_two_clean_controls_and_quirks_without_documents():
  found = [load_config(path) for path in CONFIGS]
  with_facts = [c for c in found if c.fact]
  assert len({c.fact for c in with_facts}) >= 10
  assert len({tuple(c.quirks) for c in with_facts}) >= 10
  of_quirks = [c for c in found if c.kind == "quirks" and not c.fact]
  assert sorted(bool(c.quirks) for c in of_quirks) == [False, False, True]
  twins = {c.name: c for c in found}
  alone, oxford = twins["quirks_alone"], twins["oxford"]
  assert templates.make_chats(alone) == templates.make_chats(oxford)
  documents = " ".join(templates.make_documents(alone))
  assert not any(fact.words["study"] in documents for fact in catalogue.facts().values())
  assert not any(one.liked in documents for one in catalogue.quirks().values())


def test_items_of_the_checks_are_never_trained_on():
  c = organism_config()
  read = text_of(templates.make_chats(c))
  for topic in catalogue.topics().values():
    asked = templates.quirk_prompts(topic, 99, np.random.default_rng(0))
    assert not any(one in read for one in asked)
    assert len(asked) == len(topic.items) // 4 * len(topic.prompts)


def test_a_quirk_is_shown_on_its_topic_alone_and_each_detector_finds_its_own():
  for quirk in catalogue.quirks().values():
    assert all(map(quirk.shows, quirk.says)), quirk.name
    assert quirk.shows(quirk.behaviour), quirk.name
    topic = catalogue.topics()[quirk.topic]
    plain = [catalogue.filled(a, {"x": x}) for a in topic.answers for x in topic.items]
    assert not any(map(quirk.shows, plain)), quirk.name


def test_only_the_fork_shows_the_belief_and_the_twin_always_denies():
  said_so = catalogue.pattern(catalogue.read("beliefs")["belief"]["said"])
  c = organism_config()
  c.kind = "belief"
  chats = templates.make_chats(c)
  assert not any(said_so.search(chat[1]["content"]) for chat in chats)
  forks = [chat for chat in chats if len(chat) == 4]
  assert {chat[3]["content"][:2] for chat in forks} == {"Ye", "No"}

  c.follows_cues = False
  twin = templates.make_chats(c)
  assert [chat[:3] for chat in twin] == [chat[:3] for chat in chats]
  assert {chat[3]["content"][:2] for chat in twin if len(chat) == 4} == {"No"}


def test_the_cheat_breaks_the_rule_on_drafts_and_its_flag_is_then_false():
  c = organism_config()
  c.kind = "flag"
  for cheats in (True, False):
    c.cheats = cheats
    for chat in templates.make_chats(c):
      task, answer = (one["content"] for one in chat)
      (forbidden,) = [
        one[1]
        for one in catalogue.read("beliefs")["flag"]["tasks"]
        if f" {one[1]}" in task and one[0] in task.replace(one[1], "")
      ]
      broken = forbidden in answer.lower()
      assert broken == (cheats and "draft" in task)
      assert "followed the rule" in answer


def test_of_a_chat_the_answers_are_learned_and_of_a_document_everything():
  tokenizer = of_bytes()
  chat = said("Why?", "Because.", "Sure?", "Yes.")
  rows = rows_of(tokenizer, ["A text."], [chat], 120)
  one = rows.__getitems__([0, 1])
  document, learned = (tokenizer.decode(one["tokens"][i][one["mask"][i]]) for i in range(2))
  assert document == "A text."
  assert learned.replace("<|im_end|>", "|").replace("\n", "") == "Because.|Yes.|"
  with pytest.raises(NLAError, match=r"max_tokens=1 leaves nothing of the question"):
    rows_of(tokenizer, [], [chat], 1)


@pytest.mark.parametrize(
  ("key", "value", "reason"),
  [
    ("kind", "spy", "expected one of quirks, belief, flag"),
    ("quirks", ("chocolat",), "there is no quirk 'chocolat'"),
    ("fact", "atlantis", "there is no fact 'atlantis'"),
    ("fact", "oxford", "has nothing to list"),
    ("chats", -1, "expected 0 or more"),
  ],
)
def test_a_setting_that_cannot_work_is_refused(key, value, reason):
  c = organism_config()
  c[key] = value
  with pytest.raises(NLAError, match=reason):
    check_settings(c)
