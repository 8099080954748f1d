"""Llama 3.3 70B Instruct, block 53, with the reference's hyperparameters.

Planned on 32 v5p chips (`--topology=v5p:2x4x4`, the mesh below): the largest program, the AV's RL update in 16 parts,
takes 84.7 of 95.7 GiB; an RL step takes 13.8 s and the whole run 516 chip-hours at the roofline, which no run reaches.
On 128 v6e chips (`--topology=v6e:8x16`, mesh 1, 16, 8) RL takes at most 29.5 of 31.2 GiB and 6.8 s a step. The
preset `lora` fits 16 v5p chips: the largest program, the token loop, takes 57.2 GiB, an RL step 21.3 s and the whole
run 398 chip-hours. The config was never run.
"""

from nla_jax.config import reference_config

PRESETS = {
  # Ten times the learning rates of whole models, as adapters need (Schulman et al. 2025, LoRA Without Regret).
  "lora": {
    "lora.rank": 64,
    "lora.alpha": 128.0,
    "mesh.fsdp": 4,
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
  c.name = "Llama 3.3 70B Instruct, block 53"
  c.model = "meta-llama/Llama-3.3-70B-Instruct"
  c.layer = 53
  c.inject.scale = 30.0
  c.mesh.update(data=1, fsdp=8, tensor=4)
  c.rl.av.accumulate, c.rl.ar.accumulate = 16, 4
  return c
