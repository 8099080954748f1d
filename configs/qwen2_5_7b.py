"""Qwen2.5-7B-Instruct, block 20."""
from nla_jax.config import default_config


def get_config():
  c = default_config()
  c.name = "Qwen2.5-7B-Instruct, block 20"
  c.model = "Qwen/Qwen2.5-7B-Instruct"
  c.layer = 20
  c.inject.scale = 150.0
  c.corpus = "hf://HuggingFaceFW/fineweb@sample-10BT"
  c.data.update(max_documents=100_000, max_tokens=512, batch_tokens=65536, shard_rows=16384, chunk_rows=128)
  c.teacher.max_tokens = 120
  c.rl.update(steps=4000, max_new_tokens=150)
  c.mesh.update(data=1, fsdp=8, tensor=2)
  c.export_dtype = "bfloat16"
  return c
