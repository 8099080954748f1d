"""An explanation's parts are spans of it, and the readout format is read exactly."""

from nla_jax.evaluation.fields import fields_of, items_of, quotes_of, replaced, sentences_of

TEXT = 'Next: the, of, world\n\nAbout: Economy, theory\n\nEnds: "growth of "the" United States"'
PROSE = '- The text says “so it goes”. It is calm! A novel\n2. **Tone:** dry, "as ever"'


def test_the_readout_format_gives_its_fields_items_and_its_one_quote():
  fields = fields_of(TEXT)
  assert [one.label for one in fields] == ["Next", "About", "Ends"]
  items = [[item.text for item in items_of(TEXT, one)] for one in fields]
  assert items == [["the", "of", "world"], ["Economy", "theory"], []]
  (quote,) = quotes_of(TEXT)
  assert quote.text == 'growth of "the" United States' == TEXT[quote.start : quote.end]
  for one in fields:
    assert TEXT[one.content.start : one.content.end] == one.content.text


def test_commas_that_are_items_are_read_as_such():
  for text, items in (
    ("Next: ,, the", [",", "the"]),
    ("Next: the, ,, and", ["the", ",", "and"]),
    ("Next: the, ,", ["the", ","]),
  ):
    (field,) = fields_of(text)
    assert [one.text for one in items_of(text, field)] == items
    assert all(text[one.start : one.end] == one.text for one in items_of(text, field))


def test_prose_has_sentences_bullets_and_quotes_of_any_mark():
  first, second = fields_of(PROSE)
  assert first.bullet and second.bullet and second.label == "Tone"
  sentences = [one.text for one in sentences_of(PROSE, first)]
  assert sentences == ["The text says “so it goes”.", "It is calm!", "A novel"]
  assert [one.text for one in quotes_of(PROSE)] == ["so it goes", "as ever"]
  assert not items_of("Tone: it is said, and said with much care", fields_of("Tone: a, b")[0])[2:]


def test_sentences_with_commas_are_no_list():
  text = "Summary: the article, which was printed in 1911, is about tea"
  assert items_of(text, fields_of(text)[0]) == []


def test_spans_are_replaced_all_at_once():
  assert replaced("abcdef", {(4, 6): "", (0, 2): "xyz"}) == "xyzcd"
