"""What callers hand over: a result or one sentence, for any array, list, text or number."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nla_jax.autoencoder import fve, given
from nla_jax.autoencoder.nla import NLA, Explanation
from nla_jax.autoencoder.pair import PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.cli import convert
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.loading import load
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params

D = 4
fast = settings(max_examples=80, deadline=None, database=None)

_scalars = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(),
  st.floats(),
  st.complex_numbers(),
  st.text(max_size=3),
  st.binary(max_size=3),
  st.just(10**400),
)
_dtypes = st.one_of(
  arrays.boolean_dtypes(),
  arrays.integer_dtypes(),
  arrays.floating_dtypes(),
  arrays.complex_number_dtypes(),
  arrays.unicode_string_dtypes(max_len=3),
  arrays.datetime64_dtypes(),
)
_shapes = st.one_of(
  arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
  st.tuples(st.integers(0, 5), st.just(D)),
)
_arrays = _dtypes.flatmap(lambda dtype: arrays.arrays(dtype, _shapes))
_anything = st.one_of(
  _arrays,
  st.recursive(
    _scalars,
    lambda inner: st.one_of(
      st.lists(inner, max_size=5),
      st.tuples(inner, inner),
      st.dictionaries(st.text(max_size=2), inner, max_size=2),
      st.sets(st.integers(), max_size=2),
    ),
    max_leaves=12,
  ),
  st.lists(st.lists(st.floats(width=32), min_size=D, max_size=D), max_size=4),
)


@fast
@drawn(_anything)
def test_any_value_is_activations_or_one_sentence(value):
  try:
    found = given.vectors(value, D)
  except NLAError as error:
    assert "\n" not in str(error) and len(str(error)) < 400
    return
  assert found.dtype == np.float32 and found.ndim == 2 and found.shape[1] == D
  assert np.isfinite(found).all() and ((np.abs(found).max(axis=1, initial=0) >= 0.5).all())


@fast
@drawn(
  arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.just(D)),
    elements=st.floats(min_value=-1e300, max_value=1e300),
  )
)
def test_any_finite_activation_keeps_its_direction(value):
  value = value[value.any(axis=1)]
  found = given.vectors(value, D).astype(np.float64)
  np.testing.assert_allclose(fve.normalise(found), fve.normalise(value), atol=1e-6)


@fast
@drawn(_anything)
@example(([], []))
def test_a_baseline_of_any_value_is_a_number_or_one_sentence(value):
  try:
    assert 0 <= fve.baseline_variance(value) <= 1 + 1e-9
  except NLAError as error:
    assert "\n" not in str(error)


@fast
@drawn(st.one_of(_anything, st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=4)))
def test_any_value_is_texts_or_one_sentence(value):
  try:
    assert all(one is None or isinstance(one, str) for one in given.texts(value))
  except NLAError as error:
    assert "\n" not in str(error)


@fast
@drawn(st.one_of(_anything, st.lists(st.integers(-9, 9), max_size=4)), st.integers(0, 8))
def test_any_value_is_positions_or_one_sentence(value, length):
  try:
    assert all(0 <= place < length for place in given.positions(value, length))
  except NLAError as error:
    assert "\n" not in str(error)


@fast
@drawn(_anything)
def test_any_value_is_a_count_and_a_seed_or_one_sentence(value):
  for check in (lambda: given.count("best_of", value), lambda: given.seed(value)):
    try:
      assert isinstance(check(), int)
    except NLAError as error:
      assert "\n" not in str(error)


@pytest.mark.parametrize(
  "dtype", [ml_dtypes.bfloat16, np.float16, np.float64, ml_dtypes.float8_e4m3fn, np.int8]
)
def test_every_kind_of_number_is_taken(dtype):
  rows = np.array([[1, -2, 0, 1], [0.5, 0, 3, 1]]).astype(dtype)
  np.testing.assert_array_equal(
    fve.normalise(given.vectors(rows, D)), fve.normalise(rows.astype(np.float32))
  )


@pytest.mark.parametrize("of", ["bfloat16", "float16", "float64", "int32"])
def test_torchs_tensors_are_taken_whole_or_in_lists(of):
  torch = pytest.importorskip("torch")
  rows = torch.tensor([[1.0, -2, 0, 1], [2, 0, 3, 1]]).to(getattr(torch, of))
  if rows.is_floating_point():
    rows.requires_grad_()
  expected = given.vectors(rows.detach().double().numpy(), D)
  for handed in (rows, list(rows), rows.T.contiguous().T):
    np.testing.assert_array_equal(given.vectors(handed, D), expected)
  with pytest.raises(NLAError, match="cannot be read as an array"):
    given.vectors(rows.to("meta"), D)
  assert given.positions(torch.tensor([0, -1]), 3) == [0, 2]


@pytest.mark.parametrize(
  "value, said",
  [
    (np.ones(D), "give x\\[None\\] for a single one"),
    ([[1.0, 2, 3, np.inf], [1, 2, 3, 4]], "1 of 2 hold NaN or infinity, the first is row 0"),
    ([[1.0, 2, 3, 4], [0, 0, 0, 0]], "1 of 2 activations are zero, the first is row 1"),
    (np.ma.masked_equal(np.ones((2, D)), 1), "masked"),
    ([[True] * D], "bool"),
    ([["1"] * D], "<U1"),
  ],
)
def test_the_sentence_says_what_is_wrong(value, said):
  with pytest.raises(NLAError, match=said):
    given.vectors(value, D)


@pytest.fixture(scope="module")
def nla() -> NLA:
  """Random weights; no answer parses, so every explanation is None."""
  base = load_pretrained("random:tiny")
  prompts = make_prompts(base.tokenizer, "Explain <concept>{injection_char}</concept>")
  settings = PairSettings(layer=1, scale=5.0, max_new_tokens=4)
  pair = make_pair(base.architecture, base.tokenizer, prompts, settings)
  av = verbalizer_params(base.params, base.architecture.d_model, "scalar")
  return NLA(pair, av, reconstructor_params(base.params, 1), "random:tiny")


def test_the_api_takes_any_size_and_what_it_returned(nla):
  d = nla.pair.verbalizer.architecture.d_model
  rows = np.random.default_rng(0).standard_normal((2, d))
  found = [nla.explain(rows * size, greedy=True) for size in (1.0, 2.0**900, 2.0**-900)]
  assert found[0] == found[1] == found[2]
  assert nla.explain(jnp.asarray(rows, jnp.bfloat16))[0].cosine == pytest.approx(
    found[0][0].cosine, abs=0.05
  )
  assert nla.explain(rows[:0]) == [] and nla.reconstruct([]).shape == (0, d)
  assert nla.reconstruct(found[0]).shape == (2, d)
  assert nla.reconstruct([Explanation("a b", 0.0, 0.0, None), None, "c"]).shape == (3, d)


@pytest.mark.parametrize(
  "call, said",
  [
    (lambda nla, x: nla.explain(x, best_of=0), "best_of=0: expected an integer of 1 or more"),
    (lambda nla, x: nla.explain(x, batch=2.5), "batch=2.5"),
    (lambda nla, x: nla.explain(x, seed=2**40), "below 2\\*\\*32"),
    (lambda nla, x: nla.explain(x[:, :-1]), "got \\(1, 63\\)"),
    (lambda nla, x: nla.reconstruct("abc"), "got one str: give \\[text\\]"),
    (lambda nla, x: nla.reconstruct(["a", 3]), "number 1 of 2 is int 3"),
    (lambda nla, x: nla.reconstruct({"a": "b"}), "got dict"),
    (lambda nla, x: nla.reconstruct(["a"], batch=0), "batch=0"),
    (lambda nla, x: nla.read({"a": 1}), "is a dict: expected a text, a conversation"),
    (lambda nla, x: nla.read(3.5), "is a float: expected a text, a conversation"),
    (lambda nla, x: nla.read(["a b", ""]), "the text is empty"),
    (lambda nla, x: nla.read("a b", samples=0), "samples=0"),
    (lambda nla, x: nla.read("a b", temperature=0), "temperature=0: expected a number above 0"),
    (lambda nla, x: nla.read("a b", top_p=0.9), "top_p=0.9: expected one of greedy"),
    (lambda nla, x: nla.read("a b", [1.0]), "no index of a token"),
    (lambda nla, x: nla.read("a b", True), "expected indices of tokens"),
    (lambda nla, x: nla.read("a b", [99]), "99 is none of them"),
    (lambda nla, x: nla.read("a " * 3000), "the model was made for 2048: give a shorter one"),
    (lambda nla, x: nla.read("a " * 300_000), "the model was made for 2048: give a shorter one"),
  ],
)
def test_the_api_says_what_it_does_not_take(nla, call, said):
  with pytest.raises(NLAError, match=said):
    call(nla, np.ones((1, nla.pair.verbalizer.architecture.d_model)))


# Half of a pair, controls, tokens that steer a model, tags, the marker, and characters of several bytes.
_PIECES = st.sampled_from(
  [
    "\ud83d",
    "\ude00",
    "\x00",
    "\n",
    " ",
    "<|im_end|>",
    "</explanation>",
    "㈎",
    "{}",
    "a",
    "é",
    "👍",
  ]
)
_TEXTS = st.one_of(
  st.lists(_PIECES, max_size=2).map("".join),
  st.text(st.characters(exclude_categories=()), max_size=2),
)


@settings(max_examples=25, deadline=None, database=None)
@drawn(_TEXTS)
def test_any_string_is_read_and_rebuilt_or_one_sentence(nla, text):
  d = nla.pair.verbalizer.architecture.d_model
  try:
    assert nla.pair.encode([text]).tokens.shape[0] == 1
    assert nla.reconstruct([text]).shape == (1, d)
  except NLAError as error:
    assert "\n" not in str(error)

  # Short ones only, since another length of the text is another program.
  try:
    (found,) = nla.read(text, positions=-1, greedy=True)
    assert found.text is None
  except NLAError as error:
    assert "\n" not in str(error)


@pytest.mark.parametrize(
  "arguments, said",
  [
    ({"path": None}, "path=None"),
    ({"path": b"av"}, "path=b'av'"),
    ({"path": "~nobody-of-this-name/av"}, "in the home folder of nobody"),
    ({"path": "av", "base": 3}, "base=3: expected the name of a folder"),
  ],
)
def test_loading_says_what_is_no_name(arguments, said):
  with pytest.raises(NLAError, match=said):
    load(**arguments)


def test_arrays_in_files_are_no_store(tmp_path):
  np.save(tmp_path / "acts.npy", np.ones((2, D)))
  with pytest.raises(NLAError, match=r"is a file and none of \.parquet, \.npz"):
    convert.main([str(tmp_path / "acts.npy"), str(tmp_path / "store")])
  np.savez(tmp_path / "acts.npz", activations=np.ones((2, D)))
  with pytest.raises(NLAError, match="does not say of which model"):
    convert.main([str(tmp_path / "acts.npz"), str(tmp_path / "store")])
