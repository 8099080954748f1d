"""The one configuration: every key, its default and its meaning. Files in `configs/` change values, never add keys."""

import functools
import importlib.util
import json
from pathlib import Path

from ml_collections import ConfigDict

from nla_jax.autoencoder.prompts import AR_TEMPLATE, AV_TEMPLATE
from nla_jax.config_section import Section, optimizer
from nla_jax.errors import NLAError
from nla_jax.files import expect_file, here
from nla_jax.models.lora import TARGETS
from nla_jax.workdir import read_config

# Keys that name files and folders of this machine, or may; the corpus may name several.
_PATHS = (
  "model",
  "model_adapter",
  "init",
  "corpus",
  "teacher.path",
  "teacher.model",
  "teacher.prompt",
)

START_FROM = "configs/smollm2_135m.py is the one to start from"


def default_config() -> ConfigDict:
  """Every key with its default: the reference's hyperparameters where it has them (docs/interchange.md)."""
  c = ConfigDict()
  c.name = "nla"  # shown in reports and model cards
  c.preset = "main"  # a name in the config file's PRESETS
  c.seed = 42

  # The target, and what it reads. The AV starts as a copy of it, the AR as a copy of its blocks 0..K.
  c.model = ""  # package:NAME, a .gguf, a Hugging Face directory or hub id, or random:tiny
  c.model_adapter = ""  # a LoRA of PEFT on the target alone, a directory: what a fine-tune thinks
  c.layer = 20  # K, 0-based: the output of block K is read
  c.init = ""  # a pair to train further, in place of SFT: a folder with av/ and ar/, an AV's directory or hub id
  # wikipedia-sample, chitchat-sample, a .txt, .jsonl or .parquet file, hf://dataset, or several: one+another.
  c.corpus = ""

  # Operands of matrix products: float32 | bfloat16 | auto (see parallel/precision.py).
  c.compute = "auto"
  c.kernel = "auto"  # log-probabilities by the Pallas kernel: on | off | auto, on TPUs (see models/token_scores.py)

  # Which activations are kept. Splits are cut by groups of documents, so that no article lies in two of them; groups
  # that share a text, token for token, are one.
  c.data = ConfigDict(
    {
      # A seeded sample of this many documents in all, as many of each corpus as of another; where one has fewer, the
      # others give the rest. 0 takes all.
      "max_documents": 0,
      # Shares of the documents where there are several corpora, by the names of their documents' sources:
      # "fineweb=0.7,talks=0.3". The scarcest one then says how many there are. Empty: as above.
      "weights": "",
      "max_tokens": 128,  # documents are cut to this length
      "positions_per_document": 10,
      "position_minimum": 50,  # first position that may be chosen
      "roles": "",  # of conversations, only what these say: "assistant" or "user,assistant"; empty: any token of words
      "last_of_turn": False,  # of conversations, only the last token of what a message says
      "group_by": "user",  # user (where a conversation names one) | conversation; a row's own `group` goes before both
      "held_out": 0.1,  # share of document groups that nothing is trained on; cut first
      "av_sft": 0.25,  # shares of the remaining groups
      "ar_sft": 0.25,
      "rl": 0.5,
      "next_tokens": 6,  # target's predictions kept a position, for the readout teacher; 0 stops above block K
      "batch_tokens": 2048,  # tokens of a forward in extraction
      "rows": "float32",  # how activations are kept: float32 | bfloat16 | int8 (see data/store/rounding.py)
      "shard_rows": 2048,
      "chunk_rows": 128,
    }
  )

  # What the AV's first words are learned from.
  c.teacher = ConfigDict(
    {
      "provider": "readout",  # readout | file | local | openai | anthropic
      "path": "",  # of the file provider: .parquet or .jsonl
      # Of the language models: local is any that config.model could name, read here; the others are asked.
      "model": "",
      "prompt": "",  # a file with {text} in it; empty is the package's own
      "context_tokens": 512,  # that are shown, the last before the position
      "answer_tokens": 300,
      "temperature": 0.7,
      "next_tokens": 4,  # readout: how many predictions are named
      "topic_words": 3,
      "last_words": 4,
      "max_tokens": 48,  # of one explanation; readout leaves features out to stay within it
    }
  )

  # How models of others are asked, by teachers and judges. The keys are OPENAI_API_KEY and ANTHROPIC_API_KEY.
  c.api = ConfigDict(
    {
      "url": "",  # of another server with the same interface, such as http://127.0.0.1:8000/v1
      "ceiling": 10.0,  # US dollars that a workdir may cost in all
      "price": (),  # US dollars a million tokens (input, output), where genai-prices does not know the model
      "parallel": 8,  # requests at once
      "batch": False,  # by the batch endpoint: half the price, within a day
      "poll_seconds": 30.0,
    }
  )

  # What stands around the activation and the explanation. It belongs to the weights and is exported with them.
  c.prompts = ConfigDict(
    {
      "av": AV_TEMPLATE,
      "ar": AR_TEMPLATE,
      # Lines of an explanation that the AR reads each by itself, adding up what it rebuilds of them; 1 reads it whole.
      "ar_lines": 1,
      "marker": "",  # injection character; empty finds the first single-token one in U+3200..U+33FF
      # In place of the tokenizer's: a file with a template of Jinja, or the name of one of the tokenizer's own. It is
      # exported with the tokenizer.
      "chat_template": "",
    }
  )

  # How the activation comes into the AV, at the marker.
  c.inject = ConfigDict(
    {
      "mode": "replace",  # replace (the marker's embedding) | add (to the residual after block 1, norm-matched)
      "map": "scalar",  # scalar | affine
      "scale": 0.0,  # α; 0 takes the 75th percentile of the training activations' norms
    }
  )

  # Adapters in place of whole models, in SFT and RL: the base is frozen, in bfloat16, and serves target, AV and AR.
  c.lora = ConfigDict(
    {
      "rank": 0,  # 0 trains every weight
      "alpha": 32.0,  # an adapter's product is multiplied by alpha / rank
      "targets": TARGETS,  # the block's matrices that get one
    }
  )

  # Supervised training of the two models.
  c.av = optimizer()
  c.ar = optimizer()
  c.remat = True  # recompute blocks in the backward pass: a third more work, much less memory

  # Several devices: the product of the sizes is their number. Results do not depend on it, beyond rounding.
  c.mesh = ConfigDict(
    {
      "data": 1,  # replicas; rows of a batch are shared by data and fsdp
      "fsdp": 0,  # shards of every parameter; 0 takes the devices that data and tensor leave
      "tensor": 1,  # shards of heads, hidden units and vocabulary
    }
  )

  # Reinforcement learning: the AV is rewarded for what the AR can rebuild.
  c.rl = Section(
    {
      "steps": 1000,
      "activations": 128,  # a step
      "group": 8,  # explanations an activation
      "extremes": 0,  # of each group the AV learns from so many, half the most and half the least rewarded; 0: all
      "ar_steps": 0,  # first steps in which only the AR learns, from one explanation of each of more activations
      "max_new_tokens": 150,
      "temperature": 1.0,
      # The reward, and what is taken off it.
      "reward": "mse",  # mse | cosine | log
      "truncate": False,  # explanations are cut at random for the reward, so that first words carry most
      # Share of the explanations that the AR reads in other words: in another order, or with WordNet's synonyms.
      "reword": 0.0,
      "reword_by": "both",  # order | synonyms | both (half of them each)
      "false_claim_cost": 0.0,  # reward lost for a text all of whose claims about the context are false
      "repeat_cost": 0.0,  # reward lost for a text all of whose three-word sequences occurred before
      "non_ascii_cost": 0.0,  # reward lost for a text without an ASCII character
      "length_cost": 0.0,  # reward lost a token above length_target
      "length_target": 0,
      # The AR meanwhile.
      "ar_ema": 0.0,  # decay a step of a lagged copy of the AR that gives the reward; 0: the live AR does
      "ar_teacher": 0.0,  # teacher's texts in the AR's batch, as a share of the step's explanations
      "ar_texts": "all",  # what the AR learns from: all | best (the explanation of least error in each group)
      # The policy's loss.
      "loss": "ppo",  # ppo | cispo (the clip bounds a token's weight and drops no token); the same with one update
      "advantage": "grpo",  # grpo | mean | rloo | batch (divided by the deviation over the batch, not the group)
      "drop_constant": False,  # leave groups whose rewards do not vary out of the loss's average
      "average": "sample",  # of the loss: sample (tokens, then samples) | token (all tokens alike)
      "clip": 0.2,
      "clip_high": 0.0,  # upper bound of the ratio above 1; 0 is the same as clip
      "dual_clip": 0.0,  # bound of the loss where the advantage is negative, in advantages; 0 is none
      "importance_cap": 0.0,  # bound of the weights that correct for the sampler's arithmetic; 0 leaves them out
      # The distance from the AV before RL.
      "kl_weight": 0.01,
      "kl": "k2",  # k1 (in the reward) | k2 | k3 (in the loss)
      "kl_taper": 0.0,  # tokens after which kl_weight counts half, as 1 / (1 + t / kl_taper); 0: alike everywhere
      "kl_target": 0.0,  # nats a token that kl_weight adapts to; 0 keeps the weight
      "entropy_weight": 0.0,
      "epochs": 1,
      "minibatches": 1,
      "sample_every": 10,  # steps between logged explanations
      # Added to `seed` for the order of rows and every draw of RL: a pair that is trained further on the activations of
      # its own training meets others first.
      "seed": 0,
      # A second measure: held-out activations, scored by the AR that is trained and by the AR as SFT left it.
      "watch_every": 0,  # steps; 0 is never
      "watch_rows": 48,  # held-out activations, none of those that are evaluated as long as there are others
      "keep": "last",  # the parameters of the last step, or of the best watched one: last | best
      "keep_by": "fve_fixed",  # fve_fixed | fve_held_out
      "av": optimizer(lr=1.41e-5, schedule="constant", warmup=0),
      "ar": optimizer(lr=1.41e-5, schedule="constant", warmup=0),
    }
  )

  # What a long run needs to be stopped, watched and continued.
  c.checkpoint_every = 100  # updates
  # Updates of RL between two copies of both models' parameters that stay beside the result, for `nla eval
  # --over_training`; 0 keeps none. A copy is as large as the result.
  c.snapshot_every = 0
  c.guard_limit = 5  # skipped updates in a row that stop a run

  c.export_dtype = "float32"  # of the exported weights: float32 | bfloat16
  c.export_form = (
    "merged"  # merged (whole models) | adapter (of LoRA: PEFT's files, a few MB, on the base model)
  )

  # What is measured on held-out activations. Intervals are at 95 %.
  c.evaluation = ConfigDict(
    {
      "rows": 500,  # held-out activations
      "batch": 64,
      "examples": 200,  # shown in the report
      "bootstrap": 2000,
      # Most explanations drawn of an activation, of which the AR keeps the best; 0 or 1: off, since it samples so many
      # times as much.
      "best_of": 0,
      "best_of_rows": 96,  # held-out activations on which it is measured
      # Training activations that are explained so that the pair learns how large an activation is, too; 0: it says
      # directions alone.
      "magnitude_rows": 0,
    }
  )

  # Suites that answer a question, beside the evaluation; `nla eval --suites=NAME,NAME` names them, too.
  c.suites = ConfigDict(
    {
      "names": "",  # comma-separated, of nla_jax/evaluation/suite.py; none by default
      "preset": "standard",  # how many items each looks at: quick (50) | standard (250) | full (1000)
      "judge": "",  # a YAML file of a language model by provider, see evaluation/judges/provider.py; none by default
      "sae": "",  # a folder of Gemma Scope 2 or SAELens, of this block; "" trains one on the store's training rows
    }
  )

  # A misspelt key in a config file is an error, not a new key that nothing reads.
  c.lock()
  return c


def reference_config() -> ConfigDict:
  """The defaults with the length of the reference's run: a million activations of web text, a quarter for each SFT."""
  c = default_config()
  c.corpus = "hf://HuggingFaceFW/fineweb@sample-10BT"
  c.data.update(max_documents=100_000, max_tokens=512, batch_tokens=65536, shard_rows=16384)
  c.teacher.max_tokens = 120
  c.rl.steps = 4000
  c.export_dtype = "bfloat16"
  return c


def load_config(path: str | Path, overrides: dict | None = None) -> ConfigDict:
  """The config of a Python file, or of a run's config.json.

  Args:
    path: a file like those in configs/, or the `config.json` that a run keeps.
    overrides: dotted keys and values, {"rl.steps": 3}; they win over the preset that they or the file choose.

  Raises:
    NLAError: there is no such file, or another version of nla_jax made the workdir, or a key or preset is unknown.
  """
  file = Path(expect_file(path, "the config file", START_FROM))
  if file.suffix == ".json":
    config = default_config()
    config.update(read_config(file))
    return config

  spec = importlib.util.spec_from_file_location(f"nla_config_{file.stem}", file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()

  # The preset first: what the command line says about single keys wins over it.
  overrides = overrides or {}
  config.preset = overrides.get("preset", config.preset)
  apply_preset(config, getattr(module, "PRESETS", {}))
  for key, value in overrides.items():
    _set(config, key, value)
  return config


def apply_preset(config: ConfigDict, presets: dict) -> None:
  """Sets the values of `presets[config.preset]`, whose keys are dotted; `main` is the file as it stands.

  Raises:
    NLAError: there is no such preset, or it sets a key that is unknown or of another type.
  """
  if config.preset == "main":
    return
  if config.preset not in presets:
    known = ", ".join(["main", *sorted(presets)])
    raise NLAError(f"preset {config.preset!r} is not one of {known}")
  for key, value in presets[config.preset].items():
    _set(config, key, value)


def _set(config: ConfigDict, key: str, value) -> None:
  node = config
  *path, last = key.split(".")
  for name in path:
    node = node.get(name)
    if node is None:
      break
  if isinstance(node, Section):
    last = node.current(last)
  if node is None or last not in node:
    raise NLAError(f"the config has no key {key!r}; nla_jax/config.py lists all keys")

  # `1` for `1.0` is no mistake: a ConfigDict would refuse it.
  if isinstance(node[last], float) and isinstance(value, int):
    value = float(value)
  try:
    node[last] = value
  except TypeError as error:
    raise NLAError(f"config.{key}={value!r}: expected {type(node[last]).__name__}") from error


def at_home(config: ConfigDict) -> None:
  """Puts the home folder in place of `~` in the config's paths. Raises NLAError as `nla_jax.files.here`."""
  values = config.to_dict()
  for key in _PATHS:
    value = functools.reduce(dict.__getitem__, key.split("."), values)
    parts = value.split("+~") if key == "corpus" else [value]
    found = [here(f"~{part}" if i else part) for i, part in enumerate(parts)]
    if "+".join(found) != value:
      _set(config, key, "+".join(found))


def section(config: ConfigDict, keys: tuple[str, ...]) -> dict:
  """The named parts of a config as plain JSON values."""
  found = {}
  for key in keys:
    value = config[key]
    found[key] = json.loads(value.to_json()) if isinstance(value, ConfigDict) else value
  return found
