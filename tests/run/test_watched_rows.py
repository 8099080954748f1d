"""What RL is watched on is not what it is evaluated on."""

from support import known_pair

from nla_jax.evaluation.subject import draw_subject
from nla_jax.run.training_stages import unevaluated


def test_watched_rows_are_none_of_the_evaluated_as_long_as_there_are_others(tmp_path):
  store = known_pair.write_store(tmp_path / "store")

  def rows_in_both(watched: int, evaluated: int) -> int:
    found = unevaluated(store, 5, watched)
    drawn = draw_subject(
      known_pair.KnownNLA(), store, texts=None, before_rl=None, rows=evaluated, seed=5
    )
    assert len(found) == watched and len(drawn.activations) == evaluated
    return len({row.tobytes() for row in found} & {row.tobytes() for row in drawn.activations})

  assert rows_in_both(10, known_pair.ROWS - 10) == 0
  assert rows_in_both(10, known_pair.ROWS - 9) == 1
