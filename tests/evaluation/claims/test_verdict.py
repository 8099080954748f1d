"""A claim is true by its context, related by its article, and false otherwise."""

from nla_jax.evaluation.claims.parse import claims_of
from nla_jax.evaluation.claims.verdict import Context, has_word, judged, longest_run

CONTEXT = Context(
  text="In 1911 the guild of Lübeck sold tea, and the guild sold salt to the king",
  article="In 1911 the guild of Lübeck sold tea, and the guild sold salt to the king of Norway.",
  guesses=("of", "'s", ","),
  next="of",
)


def verdicts(text, context=CONTEXT):
  return [
    (one.claim.verdict, one.claim.related, one.actual) for one in judged(claims_of(text), context)
  ]


def test_a_guess_is_true_if_the_target_has_it_among_its_own():
  assert verdicts("Next: of, Of, ,, Norway, cup") == [
    (True, None, True),
    (True, None, True),
    (True, None, False),
    (False, True, False),
    (False, False, False),
  ]
  # Without the target's predictions nobody knows.
  assert verdicts("Next: of", CONTEXT._replace(guesses=None)) == [(None, None, True)]


def test_a_topic_is_true_in_the_context_related_in_the_article_and_else_false():
  assert verdicts("About: guild, Lübeck, Norway, gold, sal") == [
    (True, None, None),
    (True, None, None),
    (False, True, None),
    (False, False, None),
    (False, False, None),
  ]


def test_an_end_is_true_verbatim_or_by_three_words_in_a_row():
  for end, verdict, related in (
    ("salt to the king", True, None),
    ("to the king", True, None),
    ("ing", True, None),  # of one endless word the last letters
    ("gold to the king", True, None),
    ("gold for the king", False, True),
    ("a cup", False, False),
    ("the guild", False, True),  # two words of it are near, and not at the end
    ("In 1911 the guild of", False, True),  # it stands in the context, not at its end
  ):
    context = CONTEXT if end[:2] != "In" else CONTEXT._replace(text=CONTEXT.text + " and more" * 8)
    assert verdicts(f'Ends: "{end}"', context) == [(verdict, related, None)], end


def test_quotes_and_numbers_of_prose_are_looked_for_in_all_of_the_context():
  text = "It says “guild of Lübeck” in 1911, not in 1912, as does Norway."
  assert [one[:2] for one in verdicts(text)] == [
    (True, None),
    (True, None),
    (False, False),
    (False, True),
  ]


def test_words_are_whole_and_runs_are_in_a_row():
  assert has_word("The cat.", "cat") and not has_word("The cats", "cat") and not has_word("a", "")
  assert has_word("a , b", ",")
  assert longest_run(list("abcd"), list("xbcyd")) == 2
  assert longest_run([], ["a"]) == 0
