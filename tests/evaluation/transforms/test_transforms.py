"""Each transform changes what its name says, and nothing else."""

import numpy as np
import pytest

from nla_jax.errors import NLAError
from nla_jax.evaluation import transforms
from nla_jax.evaluation.transforms import Material
from nla_jax.interop.base_models.random_model import byte_tokenizer

READOUT = 'Next: the, of, world\n\nAbout: Economy, theory\n\nEnds: "growth of the United States"'
PROSE = "## Notes\n1. **Tone** is “dry”. It is short!\n2. A novel — or a play...\n\nPlain line"
TABLE = {"economy": "thrift", "growth": "increase", "novel": "fiction"}


def after(name, *texts, **material):
  material = {"tokenizer": byte_tokenizer(), "synonyms": TABLE, **material}
  return transforms.applied(transforms.transform(name), list(texts), Material(**material))


def one(name, text, **material):
  return after(name, text, **material)[0]


def test_every_transform_keeps_what_is_no_text_and_is_drawn_from_the_seed():
  found = Material(
    0, np.array([1, 0, 0]), byte_tokenizer(), TABLE, lambda ids: np.array([[98]] * len(ids))
  )
  for transform in transforms.TRANSFORMS:
    first = transforms.applied(transform, [READOUT, None, PROSE], found)
    assert first[1] is None and len(first) == 3, transform.name
    assert first == transforms.applied(transform, [READOUT, None, PROSE], found), transform.name


def test_controls_change_nothing():
  for name in ("identity", "tokenizer round trip"):
    assert after(name, READOUT, PROSE) == [READOUT, PROSE]


def test_items_change_places_within_their_list():
  lines = one("items shuffled", READOUT).split("\n\n")
  assert lines != READOUT.split("\n\n") and lines[2] == READOUT.split("\n\n")[2]
  assert sorted(lines[0].removeprefix("Next: ").split(", ")) == ["of", "the", "world"]
  assert lines[1] == "About: theory, Economy"
  # Bullets keep their numbers.
  assert one("items shuffled", "1. a b\n2. c d") == "1. c d\n2. a b"


def test_sentences_and_lines_change_places_and_quotes_stay_whole():
  found = one("sentences shuffled", READOUT)
  assert found != READOUT and sorted(found.split("\n\n")) == sorted(READOUT.split("\n\n"))
  assert one("sentences shuffled", "It is. It was.") == "It was. It is."


def test_synonyms_are_replaced_at_their_rate():
  text = " ".join(["economy"] * 1000)
  for rate in (0.3, 0.9):
    share = one(f"synonyms {rate}", text).split().count("thrift") / 1000
    assert share == pytest.approx(rate, abs=0.05)
  assert "economy" not in one("synonyms", text)
  assert after("synonyms", text, synonyms=None) is None


def test_function_words_go_but_never_a_whole_field():
  found = one("function words dropped", READOUT)
  assert found == 'Next: world\n\nAbout: Economy, theory\n\nEnds: "growth United States"'
  assert one("function words dropped", "Next: the, of") == "Next: the, of"


def test_form_is_made_plain():
  assert one("case and punctuation", READOUT) == READOUT.lower().replace("next", "Next").replace(
    "about", "About"
  ).replace("ends", "Ends")
  assert one("case and punctuation", "He said “No”...") == 'he said "no"'
  assert (
    one("format stripped", PROSE)
    == "Notes\nTone is “dry”. It is short!\nA novel — or a play...\nPlain line"
  )
  assert one("quote marks removed", READOUT).endswith("Ends: growth of the United States")
  assert one("quote marks replaced", READOUT).endswith("Ends: *growth of the United States*")
  assert one("labels removed", READOUT).startswith("the, of, world\n\nEconomy")


def test_parts_stand_alone_or_are_gone():
  assert one("quotes only", READOUT) == '"growth of the United States"'
  assert one("prose only", READOUT) == READOUT.split("\n\nEnds")[0]
  assert one("prose only", "It says “no” often") == "It says  often"
  assert one("without About", READOUT) == READOUT.replace("About: Economy, theory\n\n", "")
  assert one("About alone", READOUT) == "About: Economy, theory"
  assert one("without Next", PROSE) == PROSE
  assert one("first 8 tokens", READOUT) == READOUT[:8]


def test_quotes_of_another_row_replace_ones_own():
  second = READOUT.replace("growth of the United States", "a cup of tea")
  found = after("quotes of another row", READOUT, second, PROSE, other=np.array([1, 2, 0]))
  assert found[0] == second
  assert "“" not in found[1] and '"dry"' in found[1]
  assert "“growth of the United States”" in found[2]


def test_neighbours_replace_a_share_of_the_tokens_by_other_words():
  tokenizer = byte_tokenizer()

  # Of every token the nearest is itself in capitals, the next one "z".
  def nearest(ids):
    letters = tokenizer.convert_ids_to_tokens(ids)
    return np.array([tokenizer.convert_tokens_to_ids([one.upper(), "z"]) for one in letters])

  text = "abcde " * 200
  found = one("neighbours 0.2", text, nearest=nearest)
  assert len(found) == len(text)
  changed = [b for a, b in zip(text, found) if a != b]
  assert set(changed) == {"z"} and len(changed) / 1000 == pytest.approx(0.2, abs=0.04)
  assert after("neighbours 0.2", text, nearest=None) is None


def test_a_wrong_name_is_refused_in_a_line():
  with pytest.raises(NLAError, match="expected one of identity"):
    transforms.transform("rot13")
