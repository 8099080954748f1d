"""Steering by an edited explanation is the formula, its controls have equal norm, and bad input is refused by name."""

import dataclasses
import json
import xml.etree.ElementTree as ET

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.autoencoder.explanation import Explanation
from nla_jax.autoencoder.magnitude import Magnitude
from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.pair import PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.autoencoder.text import decode
from nla_jax.cli import main as command
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.pairs.load import load_target
from nla_jax.models.injection import REPLACE, Injection
from nla_jax.models.parameters import as_base, unembedding
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.transformer import Transformer
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.reading import steer as steering
from nla_jax.reading.steered import ARMS, RANDOM

LAYER, TEXT, AT = 1, "the capital of France is", 9
EXPLANATION = "Next: Paris\n\nAbout: France, capital"
EDIT = {"Paris": "Rome"}
QUICK = {"explanation": EXPLANATION, "tokens": 0}


@pytest.fixture(scope="module")
def nla() -> NLA:
  base = load_pretrained("random:tiny")
  prompts = make_prompts(base.tokenizer, "Explain <concept>{injection_char}</concept>")
  settings = PairSettings(layer=LAYER, scale=5.0, max_new_tokens=24)
  pair = make_pair(base.architecture, base.tokenizer, prompts, settings)
  params = jax.tree.map(jnp.asarray, base.params)
  av = verbalizer_params(params, base.architecture.d_model, "scalar")
  ar = reconstructor_params(params, LAYER)
  return NLA(pair, av, ar, "random:tiny", 0.5, load_target)


def _unit(x):
  return x / np.linalg.norm(x)


def _reference(nla: NLA, alpha: float, mode: str, new: str) -> np.ndarray:
  """Next-token log-probabilities with the formula in numpy: a whole forward with the residuals written in place."""
  (lower, first), (architecture, params) = (load_target("random:tiny", k) for k in (LAYER, None))
  tokens = jnp.array([nla.tokens(TEXT).ids], jnp.int32)
  below = Transformer(lower, LAYER).apply({"params": first}, tokens).hidden
  hidden = np.asarray(below[0], np.float64)
  original, edited = np.asarray(nla.reconstruct([EXPLANATION, new]), np.float64)
  direction = _unit(_unit(edited) - _unit(original)) if mode == "add" else _unit(edited)

  h = hidden[AT]
  added = alpha * np.linalg.norm(h) * direction
  vector = h + added if mode == "add" else added
  slot = np.arange(tokens.shape[1])[None] == AT
  injection = Injection(
    jnp.asarray(slot), jnp.asarray(vector[None], jnp.float32), after=LAYER, mode=REPLACE
  )
  top = Transformer(architecture).apply({"params": params}, tokens, injection=injection).hidden
  return np.asarray(jax.nn.log_softmax(top[0, -1] @ unembedding(params).T))


@pytest.mark.parametrize("mode", ["add", "replace"])
@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_the_edit_is_the_formula(nla, mode, alpha):
  found = nla.steer(TEXT, AT, edit=EDIT, strength=alpha, mode=mode, **QUICK)
  edited = EXPLANATION.replace("Paris", "Rome")
  expected = _reference(nla, alpha, mode, edited)
  arm = found.arm("edit", alpha)
  assert (found.edited, found.position, found.positions) == (edited, AT, [AT])
  assert list(found.tokens) == ["Rome", "Paris"]
  for word, token in found.tokens.items():
    assert arm.words[word] == pytest.approx(expected[token], abs=2e-4)
    assert arm.changes[word] == pytest.approx(
      arm.words[word] - found.unsteered.words[word], abs=1e-6
    )

  shown = {one.id: one.steered for one in [*arm.rises, *arm.falls]}
  assert (
    shown
    and arm.top.id == int(expected.argmax())
    and all(abs(expected[i] - value) < 2e-4 for i, value in shown.items())
  )
  before = nla.steer(TEXT, AT, edit=EDIT, strength=0.0, **QUICK).unsteered
  assert before.words == found.unsteered.words and arm.kl > 1e-4


def test_of_the_controls_each_is_its_vector_and_all_have_one_norm(nla):
  texts = [
    EXPLANATION,
    "Next: Rome\n\nAbout: France, capital",
    "Next: Paris\n\nAbout: pepper, capital",
  ]
  rebuilt = np.asarray(nla.reconstruct(texts), np.float64)
  original, edited, other = map(_unit, rebuilt)
  added = steering.directions(nla.reconstruct, texts, "add", 3)
  put = steering.directions(nla.reconstruct, texts, "replace", 3)
  for found, wanted in (
    (added.of, {"edit": edited - original, "unedited": original, "unrelated": other - original}),
    (put.of, {"edit": edited, "unedited": original, "unrelated": other}),
  ):
    assert set(found) == set(ARMS)
    np.testing.assert_allclose([np.linalg.norm(v) for v in found.values()], 1, rtol=1e-6)
    for name, vector in wanted.items():
      np.testing.assert_allclose(found[name], _unit(vector), atol=1e-6)
  np.testing.assert_array_equal(added.of[RANDOM], put.of[RANDOM])
  assert abs(added.of[RANDOM] @ added.of["edit"]) < 0.5
  assert added.cosine == pytest.approx(original @ edited)


def test_a_reconstruction_is_patched_in_as_large_as_it_says(nla):
  """At size=explained each vector has the norm that the pair's own head gives it, and strength counts from there."""
  weight = np.random.default_rng(0).normal(size=nla.pair.verbalizer.architecture.d_model)
  sized = dataclasses.replace(nla, magnitude=Magnitude(weight.astype(np.float32), 1.0))
  edited = EXPLANATION.replace("Paris", "Rome")
  (whole,) = sized.reconstruct([edited], full_size=True)
  (norm,) = sized.magnitude.norms(nla.reconstruct([edited]))
  assert np.linalg.norm(whole) == pytest.approx(norm, rel=1e-5)

  (activation,) = nla.activations([nla.tokens(TEXT).ids], [[AT]])
  share = float(norm / np.linalg.norm(activation[0]))
  assert abs(share - 1) > 0.05
  options = {"edit": EDIT, "mode": "replace", **QUICK}
  found = sized.steer(TEXT, AT, strength=1.0, size="explained", **options)
  expected = nla.steer(TEXT, AT, strength=share, **options)
  for name in ("edit", "random"):
    words = expected.arm(name, share).words
    assert found.arm(name, 1.0).words == pytest.approx(words, abs=1e-4)

  # A pair that has the head steers as before where its size is not asked for.
  plain = nla.steer(TEXT, AT, strength=1.0, **options)
  same = sized.steer(TEXT, AT, strength=1.0, **options)
  assert plain.arm("edit", 1.0).words == same.arm("edit", 1.0).words


def test_a_strength_of_zero_changes_nothing_bit_for_bit(nla):
  found = nla.steer(
    TEXT,
    AT,
    edit=EDIT,
    strength=[0, 3.0],
    where="generated",
    explanation=EXPLANATION,
    tokens=5,
    samples=3,
  )
  still = [arm for arm in found.arms if arm.strength == 0]
  assert [arm.name for arm in still] == list(ARMS)
  for arm in still:
    assert (arm.words, arm.continuations) == (found.unsteered.words, found.unsteered.continuations)
    assert arm.rises == arm.falls == [] and arm.kl == 0
  assert found.arm("edit", 3.0).continuations != found.unsteered.continuations

  # The row without a vector is what the model writes by itself.
  alone = nla.complete(nla.tokens(TEXT).ids, max_new_tokens=5, samples=3)
  assert [decode(nla.pair.tokenizer, ids) for ids in alone] == found.unsteered.continuations


def test_a_span_and_every_generated_token(nla):
  span = nla.steer(TEXT, [3, AT], edit=EDIT, strength=2.0, where="span", **QUICK)
  one = nla.steer(TEXT, AT, edit=EDIT, strength=2.0, **QUICK)
  assert (span.positions, span.position) == ([3, AT], AT)
  assert span.arm("edit").words != one.arm("edit").words

  options = {"explanation": EXPLANATION, "tokens": 8, "greedy": True, "strength": 8.0}
  every = nla.steer(TEXT, AT, edit=EDIT, where="generated", **options)
  last = nla.steer(TEXT, -1, edit=EDIT, **options)
  assert every.positions == last.positions == [len(nla.tokens(TEXT)) - 1]
  # Up to the first new token both are one intervention, and from then on they are not.
  assert every.arm("edit").words == last.arm("edit").words
  assert every.arm("edit").continuations != last.arm("edit").continuations


def test_what_is_found_depends_on_no_other_strength(nla):
  options = {"explanation": EXPLANATION, "tokens": 4, "samples": 2}
  alone = nla.steer(TEXT, AT, edit=EDIT, strength=2.0, **options)
  among = nla.steer(TEXT, AT, edit=EDIT, strength=[0.5, 1.0, 2.0], **options)
  for name in ARMS:
    one, other = alone.arm(name), among.arm(name, 2.0)
    assert one.continuations == other.continuations
    assert one.words == pytest.approx(other.words, abs=1e-5)


def test_a_whole_new_explanation_and_words_that_are_named(nla):
  found = nla.steer(
    TEXT, AT, edit="Next: Oslo\n\nAbout: Norway", strength=1, words=["xy", "b"], **QUICK
  )
  assert found.edited == "Next: Oslo\n\nAbout: Norway" and list(found.tokens) == ["xy", "b"]
  assert found.unrelated.text != EXPLANATION and found.unrelated.new in found.unrelated.text
  assert found.effect("edit", "xy", "b")[0][0] == 1.0


def test_what_is_found_becomes_json_and_a_picture(nla):
  found = nla.steer(TEXT, AT, edit=EDIT, strength=[-1, 0.5, 2], **QUICK)
  again = json.loads(json.dumps(found.to_json()))
  assert again["explanation"] == EXPLANATION and len(again["arms"]) == 3 * len(ARMS)
  assert again["unrelated"].keys() == {"text", "old", "new"}
  for words in ((), ("Rome",)):
    root = ET.fromstring(found.to_svg(words))
    paths = [one for one in root.iter() if one.tag.endswith("path")]
    assert len(paths) == len(ARMS) and "nan" not in found.to_svg(words)


def test_the_base_of_adapters_is_not_loaded_again(nla):
  base = as_base(jax.tree.map(jnp.copy, nla.av_params["transformer"]))
  shared = dataclasses.replace(
    nla, av_params={"transformer": {}, "base": base}, base="", load_target=None
  )
  assert jax.tree.leaves(shared.whole_target.params)[0].dtype == jnp.float32
  rounded = dataclasses.replace(
    shared,
    pair=dataclasses.replace(nla.pair, verbalizer=nla.pair.verbalizer.clone(dtype=jnp.bfloat16)),
  )
  lies = zip(
    jax.tree.leaves(rounded.whole_target.params["base"]), jax.tree.leaves(base), strict=True
  )
  assert all(one is other for one, other in lies)
  found = shared.steer(TEXT, AT, edit=EDIT, strength=1.0, **QUICK)
  expected = nla.steer(TEXT, AT, edit=EDIT, strength=1.0, **QUICK)
  assert found.unsteered.words == pytest.approx(expected.unsteered.words, abs=0.3)


def test_what_is_wrong_is_said_before_anything_is_loaded(nla):
  def unloaded(*_):
    raise AssertionError("the target was loaded")

  still = dataclasses.replace(nla, load_target=unloaded)
  for options, message in (
    ({"edit": {"Oslo": "Rome"}}, "the explanation has no 'Oslo'.*Next: Paris"),
    ({"edit": {"Par": "Rome"}}, "the explanation has no 'Par'"),
    ({"edit": {"Paris": "Paris"}}, "changes nothing"),
    ({"edit": EXPLANATION}, "changes nothing"),
    ({"edit": {}}, "edit=.*expected words such as"),
    ({"edit": {"Paris": 3}}, "edit: 'Paris' -> 3"),
    ({"edit": "  "}, "the new explanation is empty"),
    ({"strength": float("nan")}, "strength=nan: expected a finite number"),
    ({"strength": [1, np.inf]}, "strength=inf"),
    ({"strength": []}, "strength has 0 values"),
    ({"strength": "much"}, "strength"),
    ({"strength": 0, "mode": "replace"}, "strength=0.*above 0"),
    ({"mode": "ad"}, "mode='ad': expected one of add, replace"),
    ({"where": "all"}, "where='all'"),
    ({"position": 99}, "24 tokens, and 99 is none of them"),
    ({"position": [1, 2]}, "2 positions are named.*where='span'"),
    ({"tokens": -1}, "max_new_tokens=-1"),
    ({"samples": 65}, "samples=65"),
    ({"temperature": 0.0}, "temperature=0.0"),
    ({"words": ["Rat", "Rum"]}, "'Rat' and 'Rum' begin with the same token"),
    ({"explanation": ""}, "explanation is empty"),
    ({"size": "whole"}, "size='whole': expected one of residual, explained"),
    ({"size": "explained"}, "take mode='replace' and where='position'"),
    ({"size": "explained", "mode": "replace", "strength": 1.0}, "does not say how large"),
    ({"samplse": 2}, "steer has no option 'samplse'"),
  ):
    options = {"position": AT, "edit": EDIT, **QUICK, **options}
    with pytest.raises(NLAError, match=message):
      still.steer(TEXT, options.pop("position"), **options)
  with pytest.raises(NLAError, match="names no base model"):
    dataclasses.replace(nla, base="").steer(TEXT, AT, edit=EDIT, **QUICK)


def test_an_explanation_that_is_missing_and_a_change_that_is_none(nla, monkeypatch):
  silent = Explanation(None, None, None, None, "…", "it has no tags")
  monkeypatch.setattr(NLA, "explain", lambda *_, **__: [silent])
  with pytest.raises(NLAError, match=f"no explanation at position {AT} .it has no tags"):
    nla.steer(TEXT, AT, edit=EDIT, tokens=0)
  monkeypatch.setattr(
    NLA, "reconstruct", lambda self, texts, **_: np.ones((len(texts), 64), np.float32)
  )
  with pytest.raises(NLAError, match="the edit changes nothing in what the AR rebuilds"):
    nla.steer(TEXT, AT, edit=EDIT, **QUICK)


def test_the_explanation_that_is_edited_is_the_one_that_is_read(nla, monkeypatch):
  read = Explanation("Next: Paris, of", 0.5, 1.0, 0.0)
  asked = []
  monkeypatch.setattr(NLA, "explain", lambda _, h, **options: asked.append((h, options)) or [read])
  found = nla.steer(TEXT, AT, edit=EDIT, tokens=0, best_of=2, seed=5)
  assert (found.explanation, found.edited) == ("Next: Paris, of", "Next: Rome, of")
  ((activation, options),) = asked
  assert options == {"best_of": 2, "seed": 5, "greedy": False}
  assert found.norm == pytest.approx(np.linalg.norm(activation[0]), rel=1e-6)


def test_the_command_line(nla, monkeypatch, tmp_path, capsys):
  monkeypatch.setattr("nla_jax.cli.steer.load", lambda *_, **__: nla)
  monkeypatch.setattr("nla_jax.parallel.process.keep_compiled_programs", lambda *_, **__: None)
  plot = tmp_path / "effect.svg"
  line = ["steer", "--nla=x", f"--position={AT}", "--strength=0.5,1", "--tokens=2", TEXT]
  line += [f"--explanation={EXPLANATION}"]
  assert command.main([*line, "--edit=Paris=Rome", f"--plot={plot}", "--json"]) == 0
  found = json.loads(capsys.readouterr().out)
  assert found["edited"] == EXPLANATION.replace("Paris", "Rome") and plot.read_text().startswith(
    "<svg"
  )

  new = tmp_path / "new.txt"
  new.write_text("Next: Oslo\n")
  assert command.main([*line, f"--explanation-file={new}"]) == 0
  shown = capsys.readouterr().out
  assert "+ Next: Oslo" in shown and "a random vector of equal norm" in shown
  for more, message in (
    ([], "give either --edit"),
    (["--edit=Paris"], "expected OLD=NEW"),
    (["--edit=Paris=Rome", "--strength=x"], "--strength=x: expected numbers"),
    ([f"--explanation-file={tmp_path / 'none.txt'}"], "none.txt"),
    (["--edit=Oslo=Rome"], "the explanation has no 'Oslo'"),
    (["--edit=Paris=Rome", f"--file={new}"], "a text and --file are given"),
  ):
    assert command.main([*line, *more]) == 2
    assert message in capsys.readouterr().err


def test_the_command_line_steers_every_conversation_of_a_file(nla, monkeypatch, tmp_path, capsys):
  monkeypatch.setattr("nla_jax.cli.steer.load", lambda *_, **__: nla)
  monkeypatch.setattr("nla_jax.parallel.process.keep_compiled_programs", lambda *_, **__: None)
  chats = tmp_path / "chats.jsonl"
  lines = [
    {"id": name, "messages": [{"role": "user", "content": f"Where is Paris, {name}?"}]}
    for name in ("one", "two", "three")
  ]
  chats.write_text("".join(json.dumps(line) + "\n" for line in lines))
  line = ["steer", "--nla=x", "--position=end:Paris", "--strength=1", "--tokens=1"]
  line += [f"--explanation={EXPLANATION}", "--edit=Paris=Rome", f"--file={chats}"]
  assert command.main([*line, "--json"]) == 0
  found = [json.loads(one) for one in capsys.readouterr().out.splitlines()]
  assert [one["id"] for one in found] == ["one", "two", "three"]
  assert all(
    one["id"] in one["prompt"] and "<|im_start|>assistant" in one["prompt"] for one in found
  )
  assert command.main([*line, f"--plot={tmp_path / 'x.svg'}"]) == 2
  assert "--plot is one picture" in capsys.readouterr().err


def test_a_user_is_answered_and_an_assistant_goes_on(nla):
  chat = [{"role": "user", "content": "Where is Paris?"}]
  found = nla.steer(chat, "end:Paris", edit=EDIT, strength=2.0, explanation=EXPLANATION, tokens=3)
  assert found.prompt.endswith("<|im_start|>assistant\n") and found.arm("edit").kl > 0
  assert nla.tokens(chat).word(found.position) == "s"
  open_turn = [*chat, {"role": "assistant", "content": "It is in"}]
  found = nla.steer(open_turn, "last", edit=EDIT, strength=2.0, **QUICK)
  assert found.prompt.endswith("It is in")
