"""An NLA of PyTorch and transformers, as a careful user would write it: what `against_torch.py` measures against.

Whole prompts with every row, transformers' own forward and `generate`, `torch.optim.AdamW`. Careful means: SDPA
attention, no unembedding where no logits are needed, logits of the answer's tokens only, no second forward where one
serves, micro-batches where a batch would not fit, no gradient where none is used. float32, or bfloat16 by autocast.
"""

import contextlib
import copy
import tempfile
from typing import Any

import numpy as np
import peft
import torch
import transformers
from torch.nn import functional

from nla_jax.autoencoder.pair import Pair
from nla_jax.interop.adapters.write import write_adapter
from nla_jax.interop.base_models.config_json import config_from_architecture
from nla_jax.interop.base_models.huggingface import tensors_of

MICRO_BATCH = (
  8  # rows of an RL forward with gradient: 64 rows of 182 tokens at once would take 15 GB
)


def language_model(params, architecture) -> transformers.PreTrainedModel:
  """transformers' model with our parameters, float32."""
  config = transformers.AutoConfig.for_model(**config_from_architecture(architecture))
  model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
  for tensor in tensors_of(params, architecture):
    model.load_state_dict({tensor.name: torch.tensor(np.asarray(tensor.make()))}, strict=False)
  model.tie_weights()
  return model


def with_adapter(model, architecture, lora, params) -> peft.PeftModel:
  """The model with our adapter as PEFT trains it; the model's own weights are frozen."""
  with tempfile.TemporaryDirectory() as folder:
    path = write_adapter(f"{folder}/adapter", architecture, lora, params, base="")
    return peft.PeftModel.from_pretrained(model, path, is_trainable=True)


def explanations(pair, tokens):
  """What the AR reads of answers [n, length] that no stop token ends: the words of their first two thirds."""
  texts = pair.tokenizer.batch_decode(
    tokens[:, : 2 * tokens.shape[1] // 3], skip_special_tokens=True
  )
  inputs = pair.encode(texts)
  assert inputs.fits.all(), "an explanation does not fit the AR"
  return inputs


class Reconstructor(torch.nn.Module):
  """Blocks 0..layer without the final norm, and a linear head that starts as the identity."""

  def __init__(self, model, layer: int):
    super().__init__()
    self.body = copy.deepcopy(model.model)
    self.body.layers = self.body.layers[: layer + 1]
    self.body.norm = torch.nn.Identity()
    width = model.config.hidden_size
    self.head = torch.nn.Linear(width, width, bias=False)
    torch.nn.init.eye_(self.head.weight)

  def forward(self, ids, mask):
    """[batch, d] from ids [batch, length] padded on the right."""
    hidden = self.body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return self.head(hidden[torch.arange(len(ids)), mask.sum(1) - 1])


def mse_nrm(predicted, golds):
  """[n] squared error of unit vectors, mean over d times d: 2(1 − cosine)."""
  unit = lambda x: functional.normalize(x.float(), dim=-1)
  return ((unit(predicted) - unit(golds)) ** 2).sum(-1)


class TorchNLA:
  """AV, AR, frozen reference and their optimizers.

  Args:
    params: the language model's, as `nla_jax` holds them.
    pair: prompts, sizes, tokenizer.
    rates: learning rates {"av", "ar"}.
    parts: which models are needed: any of "av", "ar", "reference".
    adapters: of each model, as ours begin; None where all weights are trained.
  """

  def __init__(
    self,
    params,
    pair: Pair,
    rates: dict[str, float],
    parts,
    adapters: dict[str, Any] | None = None,
  ):
    self.pair, self.layer = pair, pair.layer
    architecture, lora = pair.verbalizer.architecture, pair.verbalizer.lora
    self.av, self.adapted = language_model(params, architecture), None
    self.models = {"av": self.av}
    if "ar" in parts:
      whole = self.av
      if adapters is not None:
        own = language_model(params, architecture)
        whole = with_adapter(own, architecture, lora, adapters["ar"]).base_model.model
      self.models["ar"] = Reconstructor(whole, self.layer)
    if adapters is not None and "av" in parts:
      self.adapted = with_adapter(self.av, architecture, lora, adapters["av"])
    # With adapters the base is here: it is the reference, without a copy.
    copied = "reference" in parts and self.adapted is None
    self.reference = copy.deepcopy(self.av).requires_grad_(False) if copied else self.av
    self.optimizers = {
      name: torch.optim.AdamW(
        [one for one in self.models[name].parameters() if one.requires_grad],
        lr=rate,
        betas=(0.9, 0.95),
        eps=1e-8,
        weight_decay=0.0,
      )
      for name, rate in rates.items()
      if name in parts
    }
    prompts = pair.prompts
    self.prompt = torch.tensor(np.concatenate([prompts.before, prompts.after])).long()
    self.slot = len(prompts.before)
    self.ar_before = torch.tensor(prompts.ar_before).long()

  @staticmethod
  def precision(bfloat16: bool):
    return torch.autocast("cpu", torch.bfloat16) if bfloat16 else contextlib.nullcontext()

  def as_reference(self):
    """A context in which `reference` is the AV as RL begins."""
    return contextlib.nullcontext() if self.adapted is None else self.adapted.disable_adapter()

  @contextlib.contextmanager
  def merged(self):
    """A context in which the adapters are added to their matrices: what generates has no further products."""
    if self.adapted is None:
      yield
      return
    self.adapted.merge_adapter()
    try:
      yield
    finally:
      self.adapted.unmerge_adapter()

  def extract(self, tokens, position, bfloat16: bool):
    """Residuals after block K, [documents · positions, d], of tokens [documents, length]."""
    with torch.inference_mode(), self.precision(bfloat16):
      states = self.av.model(
        input_ids=torch.tensor(tokens).long(), output_hidden_states=True, use_cache=False
      ).hidden_states
      found = states[self.layer + 1][
        torch.arange(len(tokens))[:, None], torch.tensor(position).long()
      ]
    return found.float().reshape(-1, found.shape[-1]).numpy()

  def prompt_embeddings(self, model, vectors):
    """[batch, prompt, d] with the vectors, scaled to α, at the slot."""
    embedded = model.get_input_embeddings()(self.prompt).expand(len(vectors), -1, -1).clone()
    embedded[:, self.slot] = self.pair.verbalizer.scale * functional.normalize(vectors, dim=-1)
    return embedded

  def answer_logits(self, model, vectors, tokens):
    """[batch, length, vocabulary] before each token of the answers."""
    embedded = torch.cat(
      [self.prompt_embeddings(model, vectors), model.get_input_embeddings()(tokens[:, :-1])], 1
    )
    hidden = model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return model.lm_head(hidden[:, len(self.prompt) - 1 :]).float()

  def logprobs(self, model, vectors, tokens):
    """[batch, length]."""
    return -functional.cross_entropy(
      self.answer_logits(model, vectors, tokens).transpose(1, 2), tokens, reduction="none"
    )

  def _step(self, name: str) -> float:
    """One clipped AdamW update; returns the gradient's norm."""
    norm = torch.nn.utils.clip_grad_norm_(self.models[name].parameters(), 1.0)
    self.optimizers[name].step()
    self.optimizers[name].zero_grad()
    return float(norm)

  def av_step(self, vectors, tokens, bfloat16: bool) -> dict[str, float]:
    vectors, tokens = torch.tensor(vectors), torch.tensor(tokens).long()
    with self.precision(bfloat16):
      loss = -self.logprobs(self.av, vectors, tokens).mean()
    loss.backward()
    return {"loss": float(loss), "gradient_norm": self._step("av")}

  def ar_errors(self, tokens, lengths, golds):
    """mse_nrm [n] of explanations' tokens [n, length] after the shared beginning, and nothing longer than needed."""
    tokens, lengths = torch.tensor(tokens[:, : lengths.max()]).long(), torch.tensor(lengths).long()
    ids = torch.cat([self.ar_before.expand(len(tokens), -1), tokens], 1)
    mask = torch.arange(ids.shape[1])[None] < (lengths + len(self.ar_before))[:, None]
    return mse_nrm(self.models["ar"](ids, mask.long()), torch.tensor(golds))

  def ar_step(self, tokens, lengths, golds, bfloat16: bool, micro_batch: int | None = None):
    """One update. Returns every row's error before it and the gradient's norm."""
    errors, n = [], len(tokens)
    for part in torch.arange(n).split(micro_batch or n):
      with self.precision(bfloat16):
        found = self.ar_errors(tokens[part], lengths[part], golds[part])
      (found.sum() / n).backward()
      errors.append(found.detach().numpy())
    return np.concatenate(errors), self._step("ar")

  def rollout(self, vectors, new_tokens: int, bfloat16: bool, greedy: bool = False):
    """[batch, new_tokens] sampled tokens; nothing stops an answer."""
    draw = (
      dict(do_sample=False) if greedy else dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
    )
    with torch.no_grad(), self.merged(), self.precision(bfloat16):
      embedded = self.prompt_embeddings(self.av, torch.tensor(vectors))
      tokens = self.av.generate(
        inputs_embeds=embedded,
        attention_mask=torch.ones(embedded.shape[:2], dtype=torch.long),
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        eos_token_id=None,
        pad_token_id=self.pair.prompts.stop_id,
        **draw,
      )
    return tokens.numpy().astype(np.int32)

  def rl_step(
    self, vectors, group: int, new_tokens: int, kl_weight: float, bfloat16: bool, tokens=None
  ):
    """One step on vectors [activations, d]: rollout, reward by the AR and its update, one on-policy update of the AV.

    `tokens` are answers to go on with in place of a rollout, to compare the rest.
    """
    given = np.repeat(vectors, group, axis=0)
    if tokens is None:
      tokens = self.rollout(given, new_tokens, bfloat16)
    inputs = explanations(self.pair, tokens)
    errors, ar_norm = self.ar_step(inputs.tokens, inputs.lengths, given, bfloat16, MICRO_BATCH)
    reward = -torch.tensor(errors).reshape(-1, group)
    advantages = (
      (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-6)
    ).reshape(-1, 1)
    answers, all_vectors = torch.tensor(tokens).long(), torch.tensor(given)
    kl = 0.0
    for part in torch.arange(len(given)).split(MICRO_BATCH):
      with self.precision(bfloat16):
        with torch.no_grad(), self.as_reference():
          before = self.logprobs(self.reference, all_vectors[part], answers[part])
        now = self.logprobs(self.av, all_vectors[part], answers[part])
      ratio, gap = torch.exp(now - now.detach()), now - before
      surrogate = torch.minimum(ratio * advantages[part], ratio.clamp(0.8, 1.2) * advantages[part])
      loss = (-surrogate + kl_weight * 0.5 * gap**2).mean(1).sum() / len(given)
      loss.backward()
      kl += float((0.5 * gap.detach() ** 2).mean(1).sum()) / len(given)
    return {
      "reward": float(reward.mean()),
      "ar_gradient_norm": ar_norm,
      "av_gradient_norm": self._step("av"),
      "kl": kl,
    }
