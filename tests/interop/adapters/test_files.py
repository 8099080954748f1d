"""Adapters' files without PEFT: written, read again, and refused with a reason where they are wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nla_jax.errors import NLAError
from nla_jax.interop.adapters.read import read_adapter
from nla_jax.interop.adapters.settings import CONFIG_FILE
from nla_jax.interop.adapters.tensors import WEIGHTS_FILE
from nla_jax.interop.adapters.write import write_adapter
from nla_jax.models.lora import TARGETS, Lora, delta
from nla_jax.models.merge import merged

LORA = Lora(3, 6.0)
PREFIX = "base_model.model.model.layers."
QUERY = PREFIX + "1.self_attn.q_proj.lora_A.weight"


@pytest.fixture
def written(tmp_path, tiny_architecture, random_adapter):
  """A directory with an adapter of every matrix, made anew for each test."""
  params = random_adapter(LORA, tiny_architecture, 4)
  return write_adapter(tmp_path / "adapter", tiny_architecture, LORA, params, base="org/base")


def _edit_config(directory, **changes):
  path = directory / CONFIG_FILE
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _edit_tensors(directory, edit):
  arrays = load_file(directory / WEIGHTS_FILE)
  edit(arrays)
  save_file(arrays, directory / WEIGHTS_FILE)


def _refused(directory, architecture, *parts, **options):
  """Checks that reading fails with one line that names all of these."""
  with pytest.raises(NLAError) as error:
    read_adapter(directory, architecture, **options)
  message = str(error.value)
  assert "\n" not in message and all(part in message for part in parts), message


def test_what_is_written_is_read_again(written, tiny_architecture, random_adapter):
  params = random_adapter(LORA, tiny_architecture, 4)
  found = read_adapter(written, tiny_architecture)
  assert (found.lora, found.base, found.root, found.outside) == (LORA, "org/base", "model.", ())
  assert found.params["layers"].keys() == params["layers"].keys()
  for name, stack in params["layers"].items():
    assert found.params["layers"][name].dtype == np.float32
    np.testing.assert_array_equal(found.params["layers"][name], stack)


def test_bfloat16_matrices_are_read_exactly(tmp_path, tiny_architecture, random_adapter):
  lora = Lora(2, 1.5, ("output", "up"))
  params = random_adapter(lora, tiny_architecture, 4)
  on_devices = jax.tree.map(jnp.asarray, params)
  write_adapter(tmp_path, tiny_architecture, lora, on_devices, base="b", dtype="bfloat16")
  found = read_adapter(tmp_path, tiny_architecture)
  assert found.lora == lora
  for name, stack in params["layers"].items():
    rounded = jnp.asarray(stack, jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_array_equal(found.params["layers"][name], rounded)


def test_the_first_blocks_of_an_adapter_are_read_alone(written, tiny_architecture):
  whole = read_adapter(written, tiny_architecture)
  lower = read_adapter(written, tiny_architecture, layers=2)
  for name, stack in whole.params["layers"].items():
    np.testing.assert_array_equal(lower.params["layers"][name], stack[:2])
  assert lower.hash != whole.hash == read_adapter(written, tiny_architecture, layers=4).hash
  _refused(written, tiny_architecture, "5 blocks were asked for", layers=5)


def test_an_adapter_above_the_wanted_blocks_is_refused(written, tiny_architecture):
  def keep_the_last(arrays):
    for name in [name for name in arrays if not name.startswith(PREFIX + "3.")]:
      del arrays[name]

  _edit_tensors(written, keep_the_last)
  assert read_adapter(written, tiny_architecture).lora == LORA
  _refused(written, tiny_architecture, "adapts none of the blocks 0..2", layers=3)


def test_one_number_changes_the_hash(written, tiny_architecture):
  before = read_adapter(written, tiny_architecture).hash
  _edit_config(written, lora_alpha=7)
  other_scale = read_adapter(written, tiny_architecture).hash

  def edit(arrays):
    arrays[QUERY][0, 0] += 0.001

  _edit_config(written, lora_alpha=6)
  _edit_tensors(written, edit)
  assert len({before, other_scale, read_adapter(written, tiny_architecture).hash}) == 3


@pytest.mark.parametrize(
  "change",
  [
    {"use_dora": True},
    {"modules_to_save": ["lm_head"]},
    {"bias": "lora_only"},
    {"fan_in_fan_out": True},
    {"trainable_token_indices": [3]},
    {"lora_bias": True},
    {"layer_replication": [[0, 2], [1, 4]]},
    {"megatron_config": {"a": 1}},
    {"target_parameters": ["mlp.experts"]},
    {"alora_invocation_tokens": [1, 2]},
    {"use_qalora": True},
    {"use_bdlora": {"nblocks": 2}},
    {"arrow_config": {"top_k": 3}},
    {"kasa_config": {"beta": 0.1}},
    {"monteclora_config": {"num_samples": 4}},
    {"velora_config": {"scale": 1.0}},
    {"a_field_of_a_later_peft": {"text": "one\ntwo " * 40}},
    {"init_lora_weights": "pissa_niter_4"},
    {"init_lora_weights": "loftq"},
    {"init_lora_weights": "corda"},
    {"init_lora_weights": "lora_ga"},
    {"peft_type": "LOHA"},
    {"peft_type": None},
    {"r": 0},
    {"r": "8"},
    {"lora_alpha": None},
    {"lora_alpha": 0},
    {"rank_pattern": {"q_proj": 2.5}},
    {"rank_pattern": [2]},
    {"alpha_pattern": {"q_proj": "high"}},
    {"alpha_pattern": {"(q_proj": 3}},
  ],
)
def test_a_config_of_more_than_plain_lora_is_refused_by_its_field(
  written, tiny_architecture, change
):
  _edit_config(written, **change)
  _refused(written, tiny_architecture, str(written / CONFIG_FILE), *change)


def test_settings_of_training_and_empty_fields_of_later_versions_do_not_matter(
  written, tiny_architecture
):
  before = read_adapter(written, tiny_architecture).hash
  _edit_config(
    written,
    lora_dropout=0.1,
    inference_mode=False,
    init_lora_weights="Gaussian",
    target_modules="all-linear",
    exclude_modules=["o_proj"],
    layers_to_transform=[1],
    task_type=None,
    modules_to_save=[],
    eva_config={"rho": 2.0},
    peft_version="9.0",
    a_field_of_a_later_peft=None,
    another_one=False,
    base_model_name_or_path=None,
  )
  found = read_adapter(written, tiny_architecture)
  assert found.hash == before and found.base == ""


def _without(name):
  return lambda arrays: arrays.pop(name)


def _with(name, shape=(3, 32), value=0.0):
  return lambda arrays: arrays.update({name: np.full(shape, value, np.float32)})


@pytest.mark.parametrize(
  ("edit", "parts"),
  [
    (_without(QUERY), ["without", QUERY]),
    (_without(QUERY.replace("_A", "_B")), [QUERY, "without"]),
    (_with(PREFIX + "4.mlp.up_proj.lora_A.weight"), ["4.mlp.up_proj", "blocks 0..3"]),
    (_with(PREFIX + "01.mlp.up_proj.lora_A.weight"), ["01.mlp.up_proj", "only lora_A"]),
    (_with(PREFIX + "0.mlp.router.lora_A.weight"), ["mlp.router", "only lora_A"]),
    (_with("base_model.model.lm_head.lora_A.weight"), ["lm_head", "only lora_A"]),
    (_with("base_model.model.model.embed_tokens.lora_embedding_A"), ["lora_embedding_A"]),
    (_with(PREFIX + "0.self_attn.q_proj.lora_magnitude_vector"), ["lora_magnitude_vector"]),
    (_with(PREFIX + "0.self_attn.q_proj.lora_A.default.weight"), ["lora_A.default.weight"]),
    (_with(QUERY.removeprefix("base_model.model.")), ["only lora_A"]),
    (_with("base_model.model.layers.0.mlp.up_proj.lora_A.weight"), ["adapts two models"]),
    (
      _with("base_model.model.vision_tower.layers.0.fc1.lora_A.weight"),
      ["vision_tower", "no multimodal"],
    ),
    (_with(QUERY, (4, 32)), [QUERY, "[4, 32], expected [3, 32]"]),
    (_with(QUERY, (3, 31)), [QUERY, "[3, 31], expected [3, 32]"]),
    (_with(QUERY, (3, 32), np.nan), [QUERY, "NaN or infinity"]),
    (_with(QUERY, (3, 32), np.inf), [QUERY, "NaN or infinity"]),
    (lambda arrays: arrays.update({QUERY: np.ones((3, 32), np.int8)}), [QUERY, "is I8"]),
    (lambda arrays: arrays.clear(), ["holds no LoRA matrix"]),
  ],
)
def test_a_matrix_that_does_not_belong_is_refused_by_its_name(
  written, tiny_architecture, edit, parts
):
  _edit_tensors(written, edit)
  _refused(written, tiny_architecture, str(written / WEIGHTS_FILE), *parts)


def test_missing_and_damaged_files_are_named(written, tiny_architecture, tmp_path):
  weights, config = written / WEIGHTS_FILE, written / CONFIG_FILE
  whole = weights.read_bytes()
  weights.write_bytes(whole[: len(whole) // 2])
  _refused(written, tiny_architecture, str(weights), "not a whole safetensors file")

  weights.unlink()
  _refused(written, tiny_architecture, f"no {WEIGHTS_FILE}")
  (written / "adapter_model.bin").write_bytes(b"\x80\x04.")
  _refused(written, tiny_architecture, "can run code when loaded")

  config.write_text("[]")
  _refused(written, tiny_architecture, str(config), "no JSON object")
  config.write_text("{")
  _refused(written, tiny_architecture, str(config), "not JSON")
  _refused(tmp_path, tiny_architecture, f"no {CONFIG_FILE}")


def test_an_export_is_whole_or_absent_and_replaces_only_an_export(
  tmp_path, tiny_architecture, random_adapter
):
  params = random_adapter(LORA, tiny_architecture, 4)
  other = jax.tree.map(lambda stack: stack + 1, params)

  def write(directory, params, **options):
    return write_adapter(directory, tiny_architecture, LORA, params, base="b", **options)

  def fail(folder):
    assert (folder / WEIGHTS_FILE).is_file() and (folder / CONFIG_FILE).is_file()
    raise OSError(28, "No space left on device")

  # 1. What fails leaves what was there.
  directory = write(tmp_path / "adapter", params)
  before = read_adapter(directory, tiny_architecture).hash
  with pytest.raises(NLAError, match="No space left"):
    write(directory, other, also=fail)
  assert read_adapter(directory, tiny_architecture).hash == before
  assert [path.name for path in tmp_path.iterdir()] == ["adapter"]

  # 2. What succeeds takes its place, with the files of the caller.
  write(directory, other, also=lambda folder: (folder / "sidecar.yaml").write_text("x"))
  assert read_adapter(directory, tiny_architecture).hash != before
  assert sorted(path.name for path in directory.iterdir()) == [
    CONFIG_FILE,
    WEIGHTS_FILE,
    "sidecar.yaml",
  ]

  # 3. Files of a person are never replaced.
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "notes.txt").write_text("x")
  with pytest.raises(NLAError, match="no earlier export"):
    write(tmp_path / "mine", params)


def test_matrices_that_do_not_belong_are_not_written(tmp_path, tiny_architecture, random_adapter):
  params = random_adapter(LORA, tiny_architecture, 4)

  def refused(message, lora=LORA, root="model.", **changes):
    changed = {"layers": params["layers"] | changes}
    with pytest.raises(NLAError, match=message):
      write_adapter(tmp_path / "a", tiny_architecture, lora, changed, base="b", root=root)
    assert not (tmp_path / "a").exists()

  refused("its targets ask for", Lora(3, 6.0, TARGETS[:2]))
  refused("its targets ask for", Lora(3, 6.0, ()))
  refused("has shape", Lora(2, 6.0))
  refused("up_lora_a has shape", up_lora_a=params["layers"]["up_lora_a"][:3])
  refused("holds NaN", up_lora_b=params["layers"]["up_lora_b"] * np.nan)
  refused("'decoder.' was asked for", root="decoder.")
  longer = {name: np.concatenate([stack, stack]) for name, stack in params["layers"].items()}
  refused("has 8 blocks, its base has 4", **longer)


def test_merging_adds_each_layers_change(tiny_architecture, tiny_params, random_adapter):
  lora = Lora(3, 6.0, ("key", "output", "down"))
  adapter = random_adapter(lora, tiny_architecture, 4)
  found = merged(tiny_params, lora, adapter)
  forms = {"key": "dr,rhk->dhk", "output": "hkr,rd->hkd", "down": "fr,rd->fd"}
  for name, leaf in tiny_params["layers"].items():
    if name not in forms:
      assert found["layers"][name] is leaf
      continue
    a, b = (adapter["layers"][f"{name}_lora_{half}"].astype(np.float64) for half in "ab")
    for layer in range(4):
      change = 2 * np.einsum(forms[name], a[layer], b[layer])
      expected = np.asarray(leaf[layer]) + change
      np.testing.assert_allclose(found["layers"][name][layer], expected, rtol=1e-5, atol=1e-5)
      mine = delta(lora, np.float32(a[layer]), np.float32(b[layer]))
      np.testing.assert_allclose(mine, change, rtol=1e-5, atol=1e-5)
  assert found["embedding"] is tiny_params["embedding"]


def test_merging_can_take_the_bases_memory(tiny_architecture, tiny_params, random_adapter):
  adapter = random_adapter(LORA, tiny_architecture, 4)
  expected = merged(tiny_params, LORA, adapter)["layers"]
  base = {"layers": jax.tree.map(jnp.copy, tiny_params["layers"])}
  found = merged(base, LORA, adapter, overwrite=True)["layers"]
  for name in TARGETS:
    np.testing.assert_array_equal(found[name], expected[name])
    assert base["layers"][name].is_deleted() and not tiny_params["layers"][name].is_deleted()


def test_an_adapter_of_other_blocks_or_widths_is_not_merged(
  tiny_architecture, tiny_params, random_adapter
):
  adapter = random_adapter(LORA, tiny_architecture, 4)
  short = jax.tree.map(lambda stack: stack[:3], adapter)
  with pytest.raises(NLAError, match="the adapter's query changes a stack of"):
    merged(tiny_params, LORA, short)
  adapter["layers"]["down_lora_b"] = adapter["layers"]["down_lora_b"][..., :-1]
  with pytest.raises(NLAError, match="the adapter's down changes a stack of"):
    merged(tiny_params, LORA, adapter)


@pytest.mark.slow
def test_merging_on_a_mesh_gives_the_same_matrices_in_the_same_places():
  variables = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
  done = subprocess.run(
    [sys.executable, "-P", str(Path(__file__).with_name("meshes.py"))],
    capture_output=True,
    text=True,
    timeout=600,
    env={**os.environ, **variables},
  )
  assert done.returncode == 0, done.stderr[-3000:]
