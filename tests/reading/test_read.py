"""What a pair reads in texts and conversations, with a random pair: tokens, positions, samples, forms."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.pair import PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.autoencoder.turns import opening
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.random_model import random_model
from nla_jax.models import target
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.reading.inputs import tokens_of
from nla_jax.reading.reading import Reading

LAYER = 1
CHAT = [
  {"role": "user", "content": "Where is Paris?"},
  {"role": "assistant", "content": "In France. <|endoftext|> is a token."},
]


class Plain(NLA):
  """An NLA whose AV answers words of its activations, as a random one never closes its tags."""

  def _explanation(self, answer, similarity, error):
    taken = answer._replace(explanation=answer.raw or "nothing", reason=None)
    return super()._explanation(taken, similarity, error)


@pytest.fixture(scope="module")
def nla() -> NLA:
  base, lower = random_model("random:tiny"), random_model("random:tiny", LAYER)
  prompts = make_prompts(base.tokenizer, "Explain <concept>{injection_char}</concept>")
  settings = PairSettings(layer=LAYER, scale=5.0, max_new_tokens=8, remat=False)
  pair = make_pair(base.architecture, base.tokenizer, prompts, settings)
  av, ar = verbalizer_params(base.params, 64, "scalar"), reconstructor_params(base.params, LAYER)
  return Plain(pair, av, ar, "here", 0.7, lambda *_: (base.architecture, lower.params))


def test_a_reading_is_of_the_targets_own_activations(nla):
  texts = ["One two three.", CHAT, list(range(5, 40))]
  tokens = [nla.tokens(what) for what in texts]
  places = [[0, len(one) - 1] for one in tokens]
  found, whole = (
    nla.activations([one.ids for one in tokens], places),
    random_model("random:tiny", LAYER),
  )
  for one, positions, rows in zip(tokens, places, found, strict=True):
    expected = target.read(
      jax.tree.map(jnp.asarray, whole.params),
      jnp.array([one.ids]),
      jnp.zeros(2, jnp.int32),
      jnp.array(positions),
      architecture=whole.architecture,
      layer=LAYER,
    )
    np.testing.assert_allclose(rows, expected.activations, rtol=0, atol=1e-5)


def test_many_inputs_give_what_each_gives_alone_but_for_the_draws(nla):
  several = nla.read(["One two three.", CHAT], "every:3", best_of=1, greedy=True)
  alone = [nla.read(what, "every:3", best_of=1, greedy=True) for what in ["One two three.", CHAT]]
  for one, other in zip(several, alone, strict=True):
    assert one.positions == other.positions and one.tokens == other.tokens
    assert [e.text for e in one] == [e.text for e in other]
    np.testing.assert_allclose(one.norms, other.norms, rtol=1e-5)


def test_samples_are_each_the_best_of_their_draws_and_in_order(nla):
  reading = nla.read(CHAT, "assistant & every:4", best_of=2, samples=3, seed=1)
  assert all(len(samples) == 3 for samples in reading.samples)
  errors = [[one.mse_nrm for one in samples] for samples in reading.samples]
  assert errors == [sorted(row) for row in errors]

  # The same draws one by one: of each two the better one is kept.
  rows = np.concatenate(nla.activations([reading.tokens.ids], [reading.positions]))
  every = nla._draw(rows, (6, 1), seed=1, batch=64)
  texts = {one.text for samples in every for one in samples}
  assert {one.text for samples in reading.samples for one in samples} <= texts


def test_a_reading_comes_back_from_its_file(nla, tmp_path):
  reading = nla.read(CHAT, "end:Paris", best_of=1, samples=2)
  assert [reading.word(0), reading.tokens.roles[reading.positions[0]]] == ["s", "user"]
  reading.save(tmp_path / "r.json")
  assert Reading.load(tmp_path / "r.json") == reading
  assert json.loads((tmp_path / "r.json").read_text())["positions"][0]["role"] == "user"

  (tmp_path / "other.json").write_text('{"format": "nla_jax reading 1", "positions": [{}]}')
  for name, said in (("other", "damaged"), ("none", "there is no such file")):
    with pytest.raises(NLAError, match=said):
      Reading.load(tmp_path / f"{name}.json")


def test_forms_show_every_explanation_and_no_markup_of_others(nla):
  hostile = "<script>alert(1)</script>"
  reading = nla.read([{"role": "user", "content": hostile}], "user & last", samples=2, best_of=2)
  page = reading._repr_html_()
  assert "<script" not in page and "&lt;" in page and "confabulate" in page
  shown = str(reading)
  assert "the best of 2 by the AR" in shown and "user, content" in shown


def test_agreement_is_of_words(nla):
  reading = nla.read("One two three.", best_of=1, samples=2)
  for texts, agreement, shared in (
    (["a b c", "b c d"], 0.5, ["b", "c"]),
    (["a", "b"], 0.0, []),
    (["Same.", "same"], 1.0, ["same"]),
    (["a", None], None, []),
  ):
    made = [reading[0].__class__(text, 0.0, 2.0, 0.0) for text in texts]
    one = Reading(reading.tokens, [0], [made], [1.0], 1, LAYER)
    assert one.agreement(0) == agreement and one.shared_words(0) == shared


def test_inputs_are_as_the_target_sees_them(nla):
  tokenizer = nla.pair.tokenizer
  chat = tokens_of(tokenizer, CHAT)
  plain = tokenizer.apply_chat_template(CHAT[:1], tokenize=False)
  assert chat.ids[: len(opening(tokenizer))] == opening(tokenizer)
  assert chat.text.startswith(plain.removesuffix(tokenizer.eos_token))
  # What an assistant quotes is words, and the turn's own end is not.
  quoted = [i for i in range(len(chat)) if chat.roles[i] == "assistant"]
  assert "<|endoftext|>" in "".join(chat.word(i) for i in quoted)

  # Ids that were made elsewhere say the same words.
  again = tokens_of(tokenizer, chat.ids)
  assert again.ids == chat.ids and again.text == chat.text
  text = tokens_of(tokenizer, "a🙂é b")
  assert tokens_of(tokenizer, text.ids).text == text.text


def test_a_turn_can_be_begun_or_left_open(nla):
  tokenizer = nla.pair.tokenizer
  closed, begun = tokens_of(tokenizer, CHAT[:1]), tokens_of(tokenizer, CHAT[:1], reply=True)
  assert begun.ids[: len(closed)] == closed.ids and len(begun) > len(closed)
  left_open = tokens_of(tokenizer, CHAT, resume=True)
  assert left_open.text.endswith("is a token.")
  with pytest.raises(NLAError, match="reply and resume"):
    tokens_of(tokenizer, CHAT, reply=True, resume=True)


def test_after_a_warm_up_no_length_compiles(nla):
  # Each number of rows, and each length of one text and of several.
  for n in (1, 3, 9, 21):
    nla.read(["word " * n] * n, best_of=1)
  for n in (5, 12, 25, 38, 45):
    nla.read("word " * n, best_of=1), nla.read(["word " * n] * 2, best_of=1)
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
  )
  for n in range(2, 45, 9):
    nla.read("other " * n, best_of=1)
  nla.read(["any " * n for n in range(3, 24)], best_of=1)
  assert compiled == []
  jax.jit(lambda x: x + 17)(np.ones(7))  # it would have been seen
  assert compiled != []
