"""Writes tiny NLAs as they are released: by torch and transformers, without nla_jax, under any version of transformers.

  python writer.py '{"directory": …, "tokenizer": "tokenizer.json", "families": […]}'

For each family a folder with
  base/         a random model as this transformers saves it, with its tokenizer
  base.npz      ids [1, S] and the model's logits on them
  org-av/       an AV, trained until it answers the two vectors of vectors.npy [2, d] with TEXTS; bfloat16, in shards
  org-ar/       an AR of blocks 0..LAYER without final norm and unembedding, and its value head; bfloat16
Sidecars are written by hand in one of three spellings, see `_sidecar`.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import transformers as t
import yaml
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors

LAYER = 1
SCALE = 20.0
MARKER = "㈎"
TEXTS = ["the cat sat on the mat", "12 other cats in English"]
AV_TEMPLATE = "Explain the vector.\n\n<concept>{injection_char}</concept>"
AR_TEMPLATE = "Summary of the following text: <text>{explanation}</text> <summary>"
BOS, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT = (
  "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN2 = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
  r"|\s+(?!\S)|\s+"
)
EMITS_BOS = ("llama", "gemma3_text", "gemma3_wrapped")
SIZES = dict(
  vocab_size=416,
  hidden_size=32,
  intermediate_size=48,
  num_hidden_layers=4,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=256,
)
LLAMA3 = dict(
  rope_type="llama3",
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=64,
)
LINEAR = dict(rope_type="linear", factor=8.0)
NEW = (
  int(t.__version__.split(".")[0]) >= 5
)  # transformers 5 spells rope and sliding windows differently


def config_of(family: str, tokenizer):
  """A config in the words of this transformers, with values that are nobody's defaults."""
  sizes = SIZES | dict(
    bos_token_id=tokenizer.bos_token_id,
    eos_token_id=tokenizer.eos_token_id,
    pad_token_id=tokenizer.pad_token_id,
  )
  if family == "llama":
    rope = (
      {"rope_parameters": {"rope_theta": 2e4, **LLAMA3}}
      if NEW
      else {"rope_theta": 2e4, "rope_scaling": LLAMA3}
    )
    return t.LlamaConfig(**sizes, **rope, tie_word_embeddings=False)
  if family in ("qwen2", "qwen3"):
    rope = (
      {"rope_parameters": {"rope_theta": 3e4, "rope_type": "default"}}
      if NEW
      else {"rope_theta": 3e4}
    )
    if family == "qwen2":
      return t.Qwen2Config(**sizes, **rope, tie_word_embeddings=False)
    return t.Qwen3Config(**sizes, **rope, head_dim=16, tie_word_embeddings=True)
  if NEW:
    kinds = {
      "layer_types": [
        "sliding_attention",
        "sliding_attention",
        "full_attention",
        "sliding_attention",
      ],
      "rope_parameters": {
        "full_attention": {"rope_theta": 5e5, **LINEAR},
        "sliding_attention": {"rope_theta": 2e4, "rope_type": "default"},
      },
    }
  else:
    kinds = {
      "sliding_window_pattern": 3,
      "rope_theta": 5e5,
      "rope_local_base_freq": 2e4,
      "rope_scaling": LINEAR,
    }
  text = t.Gemma3TextConfig(
    **sizes, **kinds, head_dim=16, sliding_window=8, query_pre_attn_scalar=24
  )
  if family == "gemma3_text":
    return text
  vision = dict(
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=28,
    patch_size=14,
  )
  return t.Gemma3Config(text_config=text.to_dict(), vision_config=vision)


def model_of(config):
  """A random model, large enough in its weights that every part of it matters."""
  kind = {
    "llama": t.LlamaForCausalLM,
    "qwen2": t.Qwen2ForCausalLM,
    "qwen3": t.Qwen3ForCausalLM,
    "gemma3_text": t.Gemma3ForCausalLM,
    "gemma3": t.Gemma3ForConditionalGeneration,
  }[config.model_type]
  model = kind(config)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      parameter.normal_(std=0.3)
      if "norm" in name and config.model_type in ("llama", "qwen2", "qwen3"):
        parameter.add_(1.0)
  return model.eval()


def tokenizer_of(path: str, family: str):
  backend = Tokenizer.from_file(path)
  chat, bos = CHAT, None
  if (
    family == "qwen2"
  ):  # AutoTokenizer of transformers 5 gives every qwen2 these, whatever its file says
    backend.normalizer = normalizers.NFC()
    into_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
      [pre_tokenizers.Split(Regex(QWEN2), "isolated"), into_bytes]
    )
  if family in EMITS_BOS:
    backend.post_processor = processors.TemplateProcessing(
      single=f"{BOS} $A", special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
    chat, bos = "{{ bos_token }}" + CHAT, BOS
  return t.PreTrainedTokenizerFast(
    tokenizer_object=backend, bos_token=bos, eos_token=END, pad_token=END, chat_template=chat
  )


def prompt_ids(tokenizer) -> list[int]:
  text = tokenizer.apply_chat_template(
    [{"role": "user", "content": AV_TEMPLATE.format(injection_char=MARKER)}],
    tokenize=False,
    add_generation_prompt=True,
  )
  return tokenizer(text, add_special_tokens=False)["input_ids"]


def train_to_answer(model, tokenizer, vectors: torch.Tensor) -> None:
  """Until the likeliest answer to each vector is its text."""
  ids = prompt_ids(tokenizer)
  answers = [f"<explanation>\n{text}\n</explanation>{END}" for text in TEXTS]
  rows = tokenizer(answers, add_special_tokens=False, padding=True, return_tensors="pt")
  tokens = torch.cat([torch.tensor([ids] * len(answers)), rows["input_ids"]], dim=1)
  marker = tokenizer(MARKER, add_special_tokens=False)["input_ids"][0]
  slot = (tokens == marker)[:, :, None]
  injected = SCALE * vectors / vectors.norm(dim=1, keepdim=True)
  labels = torch.where(rows["attention_mask"].bool(), rows["input_ids"], -100)
  optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
  for _ in range(500):
    embeddings = torch.where(slot, injected[:, None], model.get_input_embeddings()(tokens))
    logits = model(inputs_embeds=embeddings).logits[:, len(ids) - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if loss < 0.01:
      return
  raise SystemExit(
    f"the {model.config.model_type} did not learn its answers (loss {float(loss):.3f})"
  )


def _sidecar(role: str, spelling: str, tokenizer) -> dict:
  """`released`: av/ar, as in the released checkpoints; `training`: actor/critic, as training writes them; `first`: the
  first schema, in which the AR's layer had another name."""
  ids = prompt_ids(tokenizer)
  marker = tokenizer(MARKER, add_special_tokens=False)["input_ids"]
  slot = ids.index(marker[0])
  suffix = tokenizer("</text> <summary>", add_special_tokens=False)["input_ids"][1:]
  av = role == "av"
  names = ("av", "ar") if spelling == "released" else ("actor", "critic")
  meta = {
    "kind": "nla_model",
    "schema_version": 1 if spelling == "first" else 2,
    "role": names[0 if av else 1],
    "stage": "rl",
    "d_model": SIZES["hidden_size"],
    "extraction": {
      "injection_scale": SCALE if av else None,
      "mse_scale": math.sqrt(SIZES["hidden_size"]),
    },
    "tokens": {
      "injection_char": MARKER,
      "injection_token_id": marker[0],
      "injection_left_neighbor_id": ids[slot - 1],
      "injection_right_neighbor_id": ids[slot + 1],
      "critic_suffix_ids": None if av else suffix,
    },
    "prompt_templates": {names[0]: AV_TEMPLATE, names[1]: AR_TEMPLATE},
  }
  if spelling == "released":
    meta |= {
      "extraction_layer_index": LAYER,
      "layer": LAYER,
      "role_aliases": {"av": "actor", "ar": "critic"},
      "training": {"num_layers": SIZES["num_hidden_layers"], "lr": 1e-5},
      "release": {"license": "other"},
    }
    if not av:
      meta["critic"] = {"num_hidden_layers": LAYER}
  else:
    meta |= {
      "base_checkpoint": f"checkpoints/{role}-sft/iter_0001000",
      "actor_reasoning_mode": "default",
    }
    if not av:
      meta["critic"] = {
        "num_hidden_layers" if spelling == "first" else "extraction_layer_index": LAYER
      }
  return meta


def write_family(family: str, folder: Path, tokenizer_file: str, spelling: str) -> None:
  torch.manual_seed(0)
  tokenizer = tokenizer_of(tokenizer_file, family)
  base = model_of(config_of(family, tokenizer))
  base.save_pretrained(folder / "base")
  tokenizer.save_pretrained(folder / "base")
  ids = torch.arange(3, 33)[None] * 7 % 400
  with torch.no_grad():
    np.savez(folder / "base.npz", ids=ids.numpy(), logits=base(ids).logits.numpy())
  if family == "gemma3_wrapped":
    return

  vectors = torch.randn(2, SIZES["hidden_size"])
  np.save(folder / "vectors.npy", vectors.numpy())
  with torch.no_grad():
    for name, parameter in base.named_parameters():
      if "norm" not in name:
        parameter.mul_(0.3)  # where training starts easily
  train_to_answer(base, tokenizer, vectors)
  av = base.to(torch.bfloat16)
  av.save_pretrained(folder / "org-av", max_shard_size="40KB")

  config = config_of(family, tokenizer)
  config.num_hidden_layers = LAYER + 1
  if getattr(config, "layer_types", None):
    config.layer_types = config.layer_types[: LAYER + 1]
  ar = model_of(config).to(torch.bfloat16)
  left_out = ("model.norm.weight", "lm_head.weight")
  kept = {name: tensor for name, tensor in ar.state_dict().items() if name not in left_out}
  ar.save_pretrained(folder / "org-ar", state_dict=kept)
  d = SIZES["hidden_size"]
  head = (torch.eye(d) + 0.1 * torch.randn(d, d)).to(torch.bfloat16)
  save_file(
    {"weight": head}, folder / "org-ar" / "value_head.safetensors", metadata={"format": "pt"}
  )
  for role, side in (("av", "left"), ("ar", "right")):
    tokenizer.padding_side = side
    tokenizer.save_pretrained(folder / f"org-{role}")
    text = yaml.safe_dump(_sidecar(role, spelling, tokenizer), sort_keys=False, allow_unicode=True)
    (folder / f"org-{role}" / "nla_meta.yaml").write_text(text, encoding="utf-8")


def main() -> None:
  torch.set_num_threads(1)
  request = json.loads(sys.argv[1])
  for family, spelling in request["families"].items():
    folder = Path(request["directory"]) / family
    folder.mkdir(parents=True)
    write_family(family, folder, request["tokenizer"], spelling)
  print(
    json.dumps(
      {
        "transformers": t.__version__,
        "layer": LAYER,
        "scale": SCALE,
        "marker": MARKER,
        "texts": TEXTS,
        "av_template": AV_TEMPLATE,
        "ar_template": AR_TEMPLATE,
      }
    )
  )


if __name__ == "__main__":
  main()
