"""The large configs on slices that are not here, by `nla plan`, and weak scaling on paper.

  python benchmarks/plans.py                  # every plan below, then the tables and docs/weak_scaling.png
  python benchmarks/plans.py --only=llama     # plans whose name begins so
  python benchmarks/plans.py --tables         # the tables and the plot from what was planned before

Each plan runs in a process of its own and is kept in benchmarks/results/plans/NAME.json. An hour or two on two cores;
needs the extra `tpu`, no accelerator.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "results" / "plans"
RL = ("--programs=rl",)
TOKENS = "--programs=rl tokens"  # enough to show that a slice is too small
LORA = "--config.preset=lora"
PARTS = ("--config.rl.av.accumulate=16", "--config.rl.ar.accumulate=4")
FINER = ("--config.rl.av.accumulate=32", "--config.rl.ar.accumulate=8")
# Name: config, topology, mesh (data, fsdp, tensor), further arguments.
PLANS = {
  "qwen2_5_7b-v5p-4": ("qwen2_5_7b", "v5p:2x2x1", (1, 4, 1), ("--config.rl.av.accumulate=4",)),
  "qwen2_5_7b-v6e-16": ("qwen2_5_7b", "v6e:4x4", (1, 8, 2), RL),
  "gemma3_12b-v5p-8": ("gemma3_12b", "v5p:2x2x2", (1, 8, 1), RL),
  "gemma3_12b-v6e-32": ("gemma3_12b", "v6e:4x8", (1, 16, 2), RL),
  "gemma3_27b-v5p-16": ("gemma3_27b", "v5p:2x2x4", (1, 8, 2), RL),
  "gemma3_27b-v6e-64": ("gemma3_27b", "v6e:8x8", (1, 16, 4), RL),
  "llama3_3_70b-v5p-16": ("llama3_3_70b", "v5p:2x2x4", (1, 4, 4), (TOKENS,)),
  "llama3_3_70b-v5p-32": ("llama3_3_70b", "v5p:2x4x4", (1, 8, 4), PARTS),
  "llama3_3_70b-v6e-64": ("llama3_3_70b", "v6e:8x8", (1, 8, 8), (TOKENS,)),
  "llama3_3_70b-v6e-128": ("llama3_3_70b", "v6e:8x16", (1, 16, 8), (*RL, *PARTS)),
  "qwen2_5_7b-lora-v5p-4": ("qwen2_5_7b", "v5p:2x2x1", (1, 4, 1), (LORA,)),
  "llama3_3_70b-lora-v5p-8": ("llama3_3_70b", "v5p:2x2x2", (1, 2, 4), (*RL, LORA, *FINER)),
  "llama3_3_70b-lora-v5p-16": ("llama3_3_70b", "v5p:2x2x4", (1, 4, 4), (LORA,)),
  "llama3_3_70b-lora-v6e-64": ("llama3_3_70b", "v6e:8x8", (1, 8, 8), (*RL, LORA)),
}
# Weak scaling: as many explanations a chip, RL alone. Two tensor shards, the rest fsdp.
SLICES = {8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 128: "4x4x8", 256: "4x8x8"}
ACTIVATIONS_A_CHIP = 8
PLANS |= {
  f"weak-{chips}": (
    "gemma3_27b",
    f"v5p:{shape}",
    (1, chips // 2, 2),
    (*RL, f"--config.rl.activations={ACTIVATIONS_A_CHIP * chips}"),
  )
  for chips, shape in SLICES.items()
}


def run(name: str) -> None:
  """One plan, in a process of its own."""
  config, topology, mesh, more = PLANS[name]
  FOLDER.mkdir(parents=True, exist_ok=True)
  axes = [f"--config.mesh.{axis}={n}" for axis, n in zip(("data", "fsdp", "tensor"), mesh)]
  begun = time.time()
  done = subprocess.run(
    [
      sys.executable,
      "-P",
      "-m",
      "nla_jax.cli.main",
      "plan",
      f"--config={ROOT}/configs/{config}.py",
      f"--topology={topology}",
      "--nearest=false",
      f"--json={FOLDER}/{name}.json",
      *axes,
      *more,
    ],
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  failed = not (FOLDER / f"{name}.json").exists()
  print(
    f"== {name} ({time.time() - begun:.0f} s)\n{done.stdout}{done.stderr[-1500:] if failed else ''}",
    flush=True,
  )


def rows() -> list[tuple[str, ...]]:
  """The table of what was planned: one line a plan."""
  gib = lambda n: f"{n / 2**30:.1f}"
  out = []
  for name in PLANS:
    file = FOLDER / f"{name}.json"
    if name.startswith("weak") or not file.exists():
      continue
    plan = json.loads(file.read_text())
    worst = max(plan["programs"], key=lambda key: plan["programs"][key]["needed"])
    seconds = sum(one["compile_seconds"] for one in plan["programs"].values())
    complete = plan["fits"] and "extract" in plan["programs"]
    out.append(
      (
        PLANS[name][0],
        plan["topology"],
        str(tuple(plan["mesh"])),
        gib(plan["memory_of_chip"]),
        f"{gib(plan['programs'][worst]['needed'])} ({worst})",
        "fits" if plan["fits"] else "does not",
        f"{plan['step_seconds']:.2f}" if plan["fits"] else "-",
        f"{plan['chip_hours']:.0f}" if complete else "-",
        f"{seconds:.0f}",
      )
    )
  return out


def weak_scaling() -> list[tuple[int, dict]]:
  """(chips, plan) of the weak-scaling plans that were made."""
  files = {chips: FOLDER / f"weak-{chips}.json" for chips in SLICES}
  return [(chips, json.loads(file.read_text())) for chips, file in files.items() if file.exists()]


def plot(plans: list[tuple[int, dict]], path: Path) -> None:
  """Step time at the roofline and bytes received by a device, against chips."""
  import matplotlib

  matplotlib.use("agg")
  import matplotlib.pyplot as plt

  plans = [
    (chips, plan)
    for chips, plan in plans
    if all(one["memory"] for one in plan["programs"].values())
  ]
  chips = [n for n, _ in plans]
  figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
  bottom = [0.0] * len(plans)
  for name in ("rl copy", "rl prompts", "rl tokens", "rl ar", "rl scores", "rl av"):
    seconds = [plan["programs"][name]["seconds"] for _, plan in plans]
    left.bar([str(n) for n in chips], seconds, bottom=bottom, label=name)
    bottom = [b + s for b, s in zip(bottom, seconds)]
  left.set(xlabel="v5p chips", ylabel="seconds a step, at the roofline")
  left.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
  kinds = sorted(
    {kind for _, plan in plans for one in plan["programs"].values() for kind in one["received"]}
  )
  for kind in kinds:
    received = [
      sum(one["received"].get(kind, 0) for one in plan["programs"].values()) / 1e9
      for _, plan in plans
    ]
    right.plot(chips, received, marker="o", label=kind)
  right.set(xlabel="v5p chips", ylabel="GB a device receives a step", xscale="log", ylim=(0, None))
  right.set_xticks(chips, [str(n) for n in chips])
  right.minorticks_off()
  right.legend(frameon=False, fontsize=8)
  figure.suptitle(
    f"Gemma 3 27B, RL, {8 * ACTIVATIONS_A_CHIP} explanations a chip and step", fontsize=10
  )
  figure.tight_layout()
  figure.savefig(path, dpi=130)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--only", default="")
  parser.add_argument("--tables", action="store_true")
  options = parser.parse_args()
  if not options.tables:
    for name in PLANS:
      if name.startswith(options.only):
        run(name)
  head = (
    "config",
    "slice",
    "mesh",
    "GiB a chip",
    "largest program",
    "",
    "RL step, s",
    "chip-hours",
    "compiled in, s",
  )
  print("\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows())))
  plans = weak_scaling()
  for chips, plan in plans:
    if not plan["fits"]:
      print(f"{chips} chips do not hold it")
      continue
    received = sum(sum(one["received"].values()) for one in plan["programs"].values())
    print(
      f"{chips} chips: {plan['step_seconds']:.3f} s a step, {received / 1e9:.1f} GB received a device, "
      f"largest {max(one['needed'] for one in plan['programs'].values()) / 2**30:.1f} GiB"
    )
  if plans:
    plot(plans, ROOT / "docs" / "weak_scaling.png")


if __name__ == "__main__":
  main()
