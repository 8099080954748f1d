"""Adapters made by PEFT on the small real models, and adapters of random numbers made without torch."""

import functools

import numpy as np
import pytest

from nla_jax.interop.adapters.tensors import adapted_leaves, our_shapes

IDS = np.arange(3, 27)[None] * 7 % 400


@pytest.fixture(scope="session")
def random_adapter():
  """A function (lora, architecture, layers): the parameters of an adapter, normal with deviation 0.3."""

  def make(lora, architecture, layers):
    rng, leaves, stacks = np.random.default_rng(5), adapted_leaves(architecture), {}
    for name in lora.targets:
      for half, shape in zip("ab", our_shapes(leaves[name], architecture, lora.rank)):
        draws = rng.normal(0, 0.3, (layers, *shape))
        stacks[f"{name}_lora_{half}"] = draws.astype(np.float32)
    return {"layers": stacks}

  return make


@pytest.fixture(scope="session")
def torch_base(torch_model):
  """A function of the kind (see tests/interop/conftest.py): the torch model in its directory, loaded anew."""
  pytest.importorskip("torch")
  import transformers as t

  def load(kind):
    wrapped = kind == "gemma3_wrapped"
    loader = t.Gemma3ForConditionalGeneration if wrapped else t.AutoModelForCausalLM
    return loader.from_pretrained(torch_model(kind)).eval()

  return load


@pytest.fixture(scope="session")
def ids():
  """The tokens [1, length] of all logits here."""
  return IDS.astype(np.int32)


@pytest.fixture(scope="session")
def torch_logits():
  """A function of a torch model: the logits [1, length, vocabulary] of `ids`."""
  torch = pytest.importorskip("torch")

  def run(model):
    with torch.no_grad():
      return model(torch.tensor(IDS)).logits.numpy()

  return run


@pytest.fixture(scope="session")
def trained(torch_base, torch_logits, tmp_path_factory):
  """A function (kind, *pairs of LoraConfig's options): (directory that PEFT saved, logits, logits without it)."""
  peft = pytest.importorskip("peft")
  import torch

  @functools.cache
  def make(kind, *options):
    torch.manual_seed(1)
    base = torch_base(kind)
    without = torch_logits(base)
    config = dict(options) | {"init_lora_weights": False, "task_type": "CAUSAL_LM"}
    model = peft.get_peft_model(base, peft.LoraConfig(**{k: thawed(v) for k, v in config.items()}))

    with torch.no_grad():
      for name, parameter in model.named_parameters():
        if "lora_" in name:
          parameter.normal_(std=0.2)
    directory = tmp_path_factory.mktemp(kind)
    model.save_pretrained(directory)
    return directory, torch_logits(model.eval()), without

  return make


def thawed(value):
  """Options are hashable so that adapters are made once: tuples stand for lists, tuples of pairs for mappings."""
  if not isinstance(value, tuple):
    return value
  return dict(value) if isinstance(value[0], tuple) else list(value)
