"""What is read of a real, tiny model: the token before the answer comes first, and the lens names real words."""

import numpy as np

from nla_jax.conversation.tokens import CONTENT
from nla_jax.game import evidence
from nla_jax.game.evidence import Turn
from nla_jax.organisms.speaker import load_speaker
from nla_jax.organisms.templates import said


def test_a_branch_is_read_where_the_answer_begins_and_at_its_tokens():
  speaker = load_speaker("random:tiny")
  turns = [Turn("", "Why?", "Because of that.", ""), Turn("", "Why?", "", "")]
  texts = [evidence.places_of(speaker, turn, 3) for turn in turns]

  tokens = speaker.tokens(said("Why?", "Because of that."))
  ids, places = texts[0]
  assert ids == tokens.ids
  assert len(places) == 3
  inside = [tokens.roles[i] == "assistant" and tokens.sections[i] == CONTENT for i in places]
  assert inside == [False, True, True]
  # An answer that is empty is read as well.
  assert len(texts[1][1]) >= 2

  rows = evidence.activations_of(speaker, texts, 1)
  assert [len(one) for one in rows] == [len(places) for _, places in texts]
  words = evidence.by_lens(speaker, rows)
  assert [len(one) for one in words] == [len(one) for one in rows]
  # Numbers of other tokens are other words, else the lens would read one row for all.
  assert len({text for some in words for text in some}) > 1
  assert np.isfinite(np.concatenate(rows)).all()


def test_features_are_parted_as_the_branches_are():
  class Features:
    def labels(self, activations):
      return [f"feature {int(one[0])}" for one in activations]

  rows = [np.full((2, 3), 1.0), np.full((1, 3), 2.0)]
  found = evidence.by_features(Features(), rows)
  assert found == [["feature 1", "feature 1"], ["feature 2"]]
