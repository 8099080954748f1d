"""Qwen2.5-7B-Instruct, block 20, with the reference's hyperparameters.

  nla run --config=configs/qwen2_5_7b.py --workdir=gs://…        (launch/tpu.sh starts it on a slice)
PLAN
"""
from nla_jax.config import default_config


def get_config():
  c = default_config()
  c.name = "Qwen2.5-7B-Instruct, block 20"
  c.model = "Qwen/Qwen2.5-7B-Instruct"
  c.layer = 20
  c.inject.scale = 150.0
  c.corpus = "hf://HuggingFaceFW/fineweb@sample-10BT"
  c.data.update(max_documents=100_000, max_tokens=512, batch_tokens=65536, shard_rows=16384)
  c.teacher.max_tokens = 120
  c.rl.steps = 4000
  c.mesh.update(data=1, fsdp=4, tensor=1)
  c.export_dtype = "bfloat16"
  return c
