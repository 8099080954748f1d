"""Against PEFT itself: what it saves gives the same logits here, and what is written here gives them there."""

import dataclasses
import json
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nla_jax.errors import NLAError
from nla_jax.interop.adapters import settings
from nla_jax.interop.adapters.read import read_adapter
from nla_jax.interop.adapters.tensors import WEIGHTS_FILE
from nla_jax.interop.adapters.write import write_adapter
from nla_jax.interop.base_models import huggingface
from nla_jax.models.lora import TARGETS
from nla_jax.models.merge import merged
from nla_jax.models.parameters import unembedding
from nla_jax.models.transformer import Transformer

KINDS = ("llama", "llama_untied", "qwen2", "qwen3", "gemma3_text", "gemma3_wrapped")
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PLAIN = (("r", 3), ("lora_alpha", 8), ("target_modules", ALL))
PATTERNS = (
  ("r", 4),
  ("lora_alpha", 6),
  ("target_modules", ALL),
  ("rank_pattern", (("q_proj", 2), (r"layers\.1\.mlp\.down_proj", 7))),
  ("alpha_pattern", (("^model.layers.0.self_attn.k_proj", 11), ("(up|gate)_proj", 0.5))),
)
CASES = {
  "two_modules": (("r", 3), ("lora_alpha", 8), ("target_modules", ("v_proj", "q_proj"))),
  "expression": (("r", 2), ("target_modules", r".*\.(0|2)\.mlp\.(up|down)_proj")),
  "all_linear": (("r", 2), ("target_modules", "all-linear")),
  "one_module_excluded": (*PLAIN, ("exclude_modules", ("up_proj",))),
  "rslora": (*PLAIN, ("use_rslora", True)),
  "layers": (*PLAIN, ("layers_to_transform", (0, 2))),
  "patterns": PATTERNS,
  "patterns_with_rslora": (*PATTERNS, ("use_rslora", True)),
}


def _architecture(directory):
  return huggingface.architecture_from_config(huggingface.read_config(directory))


def _params(directory, **options):
  return huggingface.read_params(directory, _architecture(directory), **options)


@pytest.fixture(scope="session")
def logits(ids):
  """A function of a directory's model and an adapter of it: our logits with the adapter merged into the model."""

  def run(base, adapter):
    params = merged(_params(base), adapter.lora, adapter.params)
    return (
      Transformer(_architecture(base)).apply({"params": params}, ids).hidden @ unembedding(params).T
    )

  return run


@pytest.fixture(scope="session")
def loaded_by_peft(torch_base, torch_logits):
  """A function of the kind and an adapter's directory: PEFT's logits.

  A matrix that PEFT misses or does not know is a warning there, and fails here.
  """
  peft = pytest.importorskip("peft")

  def run(kind, directory):
    with warnings.catch_warnings():
      warnings.simplefilter("error")
      warnings.simplefilter("ignore", FutureWarning)  # what PEFT still calls of transformers
      model = peft.PeftModel.from_pretrained(torch_base(kind), directory).eval()
    return torch_logits(model)

  return run


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_every_matrix_gives_pefts_logits(
  torch_model, trained, logits, relative_error, kind
):
  base = torch_model(kind)
  directory, expected, without = trained(kind, *PLAIN)
  assert relative_error(without, expected) > 0.1
  found = logits(base, read_adapter(directory, _architecture(base)))
  assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_every_way_to_choose_ranks_scales_and_modules_gives_pefts_logits(
  torch_model, trained, logits, relative_error, case
):
  base = torch_model("qwen2")
  directory, expected, without = trained("qwen2", *CASES[case])
  assert relative_error(without, expected) > 0.01
  found = logits(base, read_adapter(directory, _architecture(base)))
  assert relative_error(found, expected) < 1e-4


def test_what_is_not_adapted_is_zero_in_both_matrices(torch_model, trained):
  architecture = _architecture(torch_model("qwen2"))
  adapter = read_adapter(trained("qwen2", *CASES["layers"])[0], architecture)
  assert adapter.lora.targets == TARGETS
  for stack in adapter.params["layers"].values():
    assert not stack[1].any() and stack[0].any() and stack[2].any()

  adapter = read_adapter(trained("qwen2", *CASES["patterns"])[0], architecture)
  layers = adapter.params["layers"]
  assert adapter.lora.rank == 7 and adapter.lora.scale == 1.5
  assert not layers["query_lora_a"][..., 2:].any() and layers["query_lora_a"][..., :2].all()
  assert not layers["query_lora_b"][:, 2:].any() and layers["down_lora_b"][1].all()
  assert read_adapter(trained("qwen2", *CASES["two_modules"])[0], architecture).lora.targets == (
    "query",
    "value",
  )


def test_an_image_towers_matrices_are_named_and_left_out(torch_model, trained):
  architecture = _architecture(torch_model("gemma3_wrapped"))
  adapter = read_adapter(trained("gemma3_wrapped", *PLAIN)[0], architecture)
  assert adapter.root == "model.language_model."
  assert adapter.outside and all("vision_tower" in name for name in adapter.outside)
  assert (
    read_adapter(trained("llama", *PLAIN)[0], _architecture(torch_model("llama"))).outside == ()
  )


@pytest.mark.parametrize("root", ["language_model.model.", "language_model.", ""])
def test_other_names_of_the_same_blocks_give_the_same_adapter(torch_model, trained, tmp_path, root):
  """`language_model.model.` stands in files of transformers before 4.52; the others lack a language-model head."""
  architecture = _architecture(torch_model("gemma3_wrapped"))
  directory, _, _ = trained("gemma3_wrapped", *PLAIN)
  expected = read_adapter(directory, architecture)
  renamed = {
    name.replace("base_model.model.model.language_model.", f"base_model.model.{root}"): array
    for name, array in load_file(directory / WEIGHTS_FILE).items()
    if root or name not in expected.outside
  }
  save_file(renamed, tmp_path / WEIGHTS_FILE)
  (tmp_path / settings.CONFIG_FILE).write_bytes((directory / settings.CONFIG_FILE).read_bytes())

  found = read_adapter(tmp_path, architecture)
  assert found.root == root and found.hash == expected.hash


@pytest.mark.parametrize("kind", KINDS)
def test_peft_loads_what_is_written(
  torch_model, loaded_by_peft, trained, relative_error, tmp_path, kind
):
  """The ranks and scales of the patterns come back padded and folded; in Gemma's tower nothing is adapted."""
  options = dict(PATTERNS)
  if kind == "gemma3_wrapped":
    options["target_modules"] = rf".*language_model.*\.({'|'.join(ALL)})"
  source, expected, without = trained(kind, *options.items())
  architecture = _architecture(torch_model(kind))
  adapter = read_adapter(source, architecture)
  written = write_adapter(
    tmp_path / "adapter",
    architecture,
    adapter.lora,
    adapter.params,
    base=str(torch_model(kind)),
    root=adapter.root,
  )
  assert relative_error(without, expected) > 0.01
  assert relative_error(loaded_by_peft(kind, written), expected) < 1e-5

  again = read_adapter(written, architecture)
  assert again.hash == adapter.hash and again.base == str(torch_model(kind))


@pytest.mark.parametrize("kind", ["llama", "gemma3_wrapped"])
def test_an_adapter_of_the_first_blocks_adapts_these_alone(
  torch_model, loaded_by_peft, trained, logits, relative_error, tmp_path, kind
):
  """As of an AR: its base in PEFT is the whole model."""
  architecture = _architecture(torch_model(kind))
  adapter = read_adapter(trained(kind, *PLAIN)[0], architecture, layers=2)
  written = write_adapter(
    tmp_path / "adapter",
    architecture,
    adapter.lora,
    adapter.params,
    base="base",
    root=adapter.root,
  )
  whole = read_adapter(written, architecture)
  assert not any(stack[2].any() for stack in whole.params["layers"].values())
  expected = logits(torch_model(kind), whole)
  assert relative_error(loaded_by_peft(kind, written), expected) < 1e-4

  assert read_adapter(written, architecture.lower(2)).hash == adapter.hash


def test_every_field_of_loraconfig_is_read_known_to_be_irrelevant_or_refused():
  peft = pytest.importorskip("peft")
  fields = {field.name for field in dataclasses.fields(peft.LoraConfig)}
  known = {*settings.READ, *settings.IRRELEVANT, *settings.REFUSED, "init_lora_weights"}
  assert fields == known

  # The values that refusals compare with are PEFT's own defaults.
  assert {name: getattr(peft.LoraConfig(), name) for name in settings.REFUSED} == settings.REFUSED


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_start_that_changes_the_base_is_no_adapter_of_the_base(
  torch_model, torch_base, torch_logits, logits, relative_error, tmp_path, start
):
  """Why these are refused: the saved matrices added to the base are another model than the one that was saved."""
  peft = pytest.importorskip("peft")
  architecture = _architecture(torch_model("llama"))
  config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=start)
  model = peft.get_peft_model(torch_base("llama"), config).eval()
  expected = torch_logits(model)
  model.save_pretrained(tmp_path)
  with pytest.raises(NLAError, match=f"init_lora_weights is '{start}'"):
    read_adapter(tmp_path, architecture)

  path = tmp_path / settings.CONFIG_FILE
  path.write_text(json.dumps(json.loads(path.read_text()) | {"init_lora_weights": True}))
  found = logits(torch_model("llama"), read_adapter(tmp_path, architecture))
  assert relative_error(found, expected) > 0.01


def test_a_bfloat16_base_is_rounded_once(torch_model, trained):
  half = _params(torch_model("llama"), dtype="bfloat16")
  adapter = read_adapter(trained("llama", *PLAIN)[0], _architecture(torch_model("llama")))
  found = merged(half, adapter.lora, adapter.params)["layers"]["down"]
  full = {"layers": {name: leaf.astype(jnp.float32) for name, leaf in half["layers"].items()}}
  expected = merged(full, adapter.lora, adapter.params)["layers"]["down"]
  assert found.dtype == jnp.bfloat16
  np.testing.assert_array_equal(found, expected.astype(jnp.bfloat16))
