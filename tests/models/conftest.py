"""Random models of every family, made by transformers and read by us."""

import functools

import jax
import pytest

from nla_jax.interop.base_models import huggingface

SIZES = dict(
  vocab_size=101,
  hidden_size=32,
  intermediate_size=48,
  num_hidden_layers=4,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=128,
)
# Bounds chosen so that heads of 8 have frequencies below, between and above them.
LLAMA3 = dict(
  rope_type="llama3",
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=64,
  rope_theta=1e3,
)
GEMMA = dict(
  head_dim=16,
  sliding_window=6,
  query_pre_attn_scalar=24,
  layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
  rope_parameters={
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
  },
)


def _make(family: str):
  import transformers as t

  if family == "gemma3":  # the multimodal wrapper, of which we read the text part
    vision = dict(
      hidden_size=16,
      intermediate_size=16,
      num_hidden_layers=1,
      num_attention_heads=2,
      image_size=28,
      patch_size=14,
    )
    text = t.Gemma3TextConfig(**SIZES, **GEMMA).to_dict()
    config = t.Gemma3Config(text_config=text, vision_config=vision, attn_implementation="eager")
    return t.Gemma3ForConditionalGeneration(config)
  model, config, options = {
    "llama": (t.LlamaForCausalLM, t.LlamaConfig, dict(tie_word_embeddings=True)),
    "llama3": (
      t.LlamaForCausalLM,
      t.LlamaConfig,
      dict(tie_word_embeddings=True, rope_parameters=LLAMA3),
    ),
    "llama3_untied": (
      t.LlamaForCausalLM,
      t.LlamaConfig,
      dict(tie_word_embeddings=False, rope_parameters=LLAMA3),
    ),
    "qwen2": (t.Qwen2ForCausalLM, t.Qwen2Config, dict(tie_word_embeddings=True)),
    "qwen3": (t.Qwen3ForCausalLM, t.Qwen3Config, dict(tie_word_embeddings=False, head_dim=16)),
    "gemma3_text": (t.Gemma3ForCausalLM, t.Gemma3TextConfig, GEMMA),
  }[family]
  return model(config(**SIZES, **options, attn_implementation="eager"))


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
  """A function of the family: (the torch model, our architecture, our parameters read from what it saved)."""
  torch = pytest.importorskip("torch")

  @functools.cache
  def make(family: str):
    torch.manual_seed(0)
    model = _make(family).eval()
    with torch.no_grad():
      for parameter in model.parameters():
        parameter.normal_(std=0.3)
    directory = tmp_path_factory.mktemp(family)
    model.save_pretrained(directory)
    architecture = huggingface.architecture_from_config(huggingface.read_config(directory))
    return (
      model,
      architecture,
      jax.tree.map(jax.numpy.asarray, huggingface.read_params(directory, architecture)),
    )

  return make


@pytest.fixture(scope="session")
def torch_forward():
  """A function (model, ids, valid) -> (residual after each block [L, B, S, D], logits [B, S, V]), numpy float32.

  Residuals come from hooks, since the last of `hidden_states` is after the final norm. `valid` [B, S] bool numpy.
  Further arguments go to the model (`logits_to_keep=n`: logits of the last n columns only).
  """
  torch = pytest.importorskip("torch")

  def run(model, ids, valid, **options):
    residuals = []
    keep = lambda module, inputs, output: residuals.append(
      output[0] if isinstance(output, tuple) else output
    )
    hooks = [layer.register_forward_hook(keep) for layer in model.get_decoder().layers]
    mask = torch.tensor(valid)
    with torch.no_grad():
      logits = model(
        torch.tensor(ids).long(),
        attention_mask=mask.long(),
        position_ids=(mask.long().cumsum(1) - 1).clamp(min=0),
        **options,
      ).logits
    for hook in hooks:
      hook.remove()
    return torch.stack(residuals).numpy(), logits.numpy()

  return run
