"""A claim is deleted with what separates it, and the control deletes as many words elsewhere."""

import numpy as np

from nla_jax.evaluation.claims.delete import without, without_random
from nla_jax.evaluation.claims.parse import claims_of

READOUT = 'Next: the, of\n\nAbout: Economy\n\nEnds: "growth of the States"'


def test_each_claim_goes_with_its_comma_or_its_line():
  found = [without(READOUT, claim) for claim in claims_of(READOUT)]
  assert found == [
    READOUT.replace("the, of", "of"),
    READOUT.replace("the, of", "the"),
    READOUT.replace("About: Economy\n\n", ""),
    READOUT.replace('\n\nEnds: "growth of the States"', ""),
  ]
  (claim,) = claims_of("Next: the")
  assert without("Next: the", claim) == ""


def test_words_of_a_sentence_go_with_their_marks():
  text = "The text says “so it goes” of Paris, twice."
  quote, name = claims_of(text)
  assert without(text, quote) == "The text says of Paris, twice."
  assert without(text, name) == "The text says “so it goes” of, twice."


def test_the_control_deletes_as_many_words_and_none_of_the_claim():
  claims = claims_of(READOUT)
  words = lambda text: text.replace('"', " ").replace(",", " ").split()
  for claim in claims:
    for seed in range(20):
      other = without_random(READOUT, claim, np.random.default_rng(seed))
      if other is None:
        continue
      assert claim.text in other
      assert len(words(READOUT)) - len(words(other)) == len(claim.text.split())
  # Four words in a row are nowhere but in the quote.
  assert without_random(READOUT, claims[-1], np.random.default_rng(0)) is None
