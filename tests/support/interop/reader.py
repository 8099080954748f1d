"""Reads AVs and ARs as NLA tools read them: torch, transformers, safetensors and yaml, without nla_jax.

  python reader.py REQUEST.json ANSWER.json

The request is a list of {"av": folder, "ar": folder, "texts": […], "vectors": [[…]], "max_new_tokens": n}; the answer
holds for each the AR's predictions for the texts, and the ids and the words of the AV's greedy answers to the vectors.
"""

import json
import math
import sys
from pathlib import Path

import torch
import transformers
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def load_model(folder: Path):
  model, report = AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, output_loading_info=True
  )
  absent = set(report["missing_keys"]) - {"model.norm.weight", "lm_head.weight"}
  assert not absent and not report["unexpected_keys"] and not report["mismatched_keys"], report
  return model.eval()


def template(meta: dict, *names: str) -> str:
  return next(meta["prompt_templates"][name] for name in names if name in meta["prompt_templates"])


def reconstruct(folder: Path, texts: list[str]) -> list[list[float]]:
  """The AR: final norm and lm_head become the identity, the head reads the last token."""
  meta = yaml.safe_load((folder / "nla_meta.yaml").read_text(encoding="utf-8"))
  assert meta["kind"] == "nla_model" and meta["role"] in ("ar", "critic")
  assert isinstance(meta["extraction"]["mse_scale"], float)
  model = load_model(folder)
  model.model.norm, model.lm_head = torch.nn.Identity(), torch.nn.Identity()
  d = model.config.hidden_size
  head = torch.nn.Linear(d, d, bias=False)
  head.load_state_dict(
    {name: tensor.float() for name, tensor in load_file(folder / "value_head.safetensors").items()}
  )
  tokenizer = AutoTokenizer.from_pretrained(folder)
  assert tokenizer.padding_side == "right"
  first = tokenizer("x", add_special_tokens=True)["input_ids"][0]
  assert tokenizer.bos_token_id is None or first == tokenizer.bos_token_id
  suffix, predictions = meta["tokens"]["critic_suffix_ids"], []
  for text in texts:
    ids = tokenizer(
      template(meta, "ar", "critic").format(explanation=text),
      add_special_tokens=True,
      split_special_tokens=True,
    )["input_ids"]
    assert ids[-len(suffix) :] == suffix
    with torch.no_grad():
      predictions.append(head(model.model(torch.tensor([ids])).last_hidden_state[0, -1]).tolist())
  return predictions


def explain(folder: Path, vectors: list[list[float]], max_new_tokens: int) -> tuple[list, list]:
  """The AV: greedy answers from input embeddings in which the marker's is replaced."""
  meta = yaml.safe_load((folder / "nla_meta.yaml").read_text(encoding="utf-8"))
  assert meta["kind"] == "nla_model" and meta["role"] in ("av", "actor")
  model, tokenizer, tokens = (
    load_model(folder),
    AutoTokenizer.from_pretrained(folder),
    meta["tokens"],
  )
  content = template(meta, "av", "actor").format(injection_char=tokens["injection_char"])
  text = tokenizer.apply_chat_template(
    [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
  )
  ids = tokenizer(text, add_special_tokens=False)["input_ids"]
  assert ids.count(tokens["injection_token_id"]) == 1
  slot = ids.index(tokens["injection_token_id"])
  assert ids[slot - 1] == tokens["injection_left_neighbor_id"]
  assert ids[slot + 1] == tokens["injection_right_neighbor_id"]
  answers = []
  for vector in vectors:
    h = torch.tensor(vector)
    embeddings = model.get_input_embeddings()(torch.tensor([ids])).detach().clone()
    embeddings[0, slot] = meta["extraction"]["injection_scale"] * h / max(h.norm().item(), 1e-12)
    answer = model.generate(
      inputs_embeds=embeddings,
      attention_mask=torch.ones(1, len(ids), dtype=torch.long),
      do_sample=False,
      max_new_tokens=max_new_tokens,
    )
    answers.append(answer[0].tolist())
  return answers, [tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]


def main() -> None:
  torch.set_num_threads(1)
  request, answer = map(Path, sys.argv[1:])
  found = []
  for job in json.loads(request.read_text()):
    predictions = reconstruct(Path(job["ar"]), job["texts"])
    tokens, words = explain(Path(job["av"]), job["vectors"], job["max_new_tokens"])
    assert all(math.isfinite(value) for row in predictions for value in row)
    found.append({"predictions": predictions, "tokens": tokens, "words": words})
  answer.write_text(json.dumps(found))
  print(json.dumps({"transformers": transformers.__version__}))


if __name__ == "__main__":
  main()
