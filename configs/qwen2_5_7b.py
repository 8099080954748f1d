"""Qwen2.5-7B-Instruct, block 20, with the reference's hyperparameters.

  nla run --config=configs/qwen2_5_7b.py --workdir=/shared/qwen2_5_7b   (launch/tpu.sh starts it)

Planned on four v5p chips (`--topology=v5p:2x2x1`, the mesh below): the largest program, the AV's RL update in four
parts, takes 85.9 of 95.7 GiB; an RL step takes 10.5 s and the whole run 49 chip-hours at the roofline, which no run
reaches. The config was never run.
"""

from nla_jax.config import reference_config

PRESETS = {
  # Ten times the learning rates of whole models, as adapters need (Schulman et al. 2025, LoRA Without Regret).
  "lora": {
    "lora.rank": 64,
    "lora.alpha": 128.0,
    "av.lr": 2e-4,
    "av.lr_end": 2e-5,
    "ar.lr": 2e-4,
    "ar.lr_end": 2e-5,
    "rl.av.lr": 1.41e-4,
    "rl.ar.lr": 1.41e-4,
  },
}


def get_config():
  c = reference_config()
  c.name = "Qwen2.5-7B-Instruct, block 20"
  c.model = "Qwen/Qwen2.5-7B-Instruct"
  c.layer = 20
  c.inject.scale = 150.0
  c.mesh.update(data=1, fsdp=4, tensor=1)
  c.rl.av.accumulate = 4
  return c
