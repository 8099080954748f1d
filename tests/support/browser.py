"""A real server in a thread, of a tiny random pair, and Chromium in front of it."""

import contextlib
import dataclasses
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from support.interop.small_pair import edit, write_pair
from support.model_folder import write_model
from support.tokenizers_of_cases import AV, of_bytes

from nla_jax.loading import load

# As a pair of ours says it: what FVE is measured against.
BASELINE = 0.6


def chromium() -> str | None:
  """The browser of this machine; None where there is none."""
  return (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
  )


def tiny_pair(folder: Path):
  """A loaded pair of random weights. Its AV is asked for no tags, so that whatever it writes is an explanation."""
  tokenizer = of_bytes()
  facts = {"baseline_variance": BASELINE, "max_new_tokens": 32}
  folders = write_pair(folder, write_model(folder / "model", tokenizer), tokenizer, AV, facts)
  end = tokenizer.convert_tokens_to_ids("<|im_end|>")

  def end_sooner(arrays):
    # Random logits seldom end an answer before its cap; those of a longer row are far out, to one side or the other.
    arrays["model.embed_tokens.weight"][end] *= 12
    return arrays

  edit(folders.av / "model.safetensors", end_sooner)
  return load(folders.av, folders.ar)


@contextlib.contextmanager
def served(nla, secret: str | None = None, trust=None, **limits) -> Iterator[str]:
  """The address of a server that answers while the block runs; `trust` is its model of claims."""
  import uvicorn

  from nla_jax.serving import run
  from nla_jax.serving.limits import Limits
  from nla_jax.serving.reader import Reader
  from nla_jax.serving.server import application
  from nla_jax.serving.service import Service

  sizes = dataclasses.replace(Limits(), **limits)
  reader = Reader(nla, "tiny", sizes.rows)
  reader.trust = trust
  service = Service(reader, sizes, secret)
  server = uvicorn.Server(uvicorn.Config(application(service), log_level="warning", lifespan="off"))
  with run.listen("127.0.0.1", 0, secret) as taken:
    thread = threading.Thread(target=server.run, args=([taken],), daemon=True)
    thread.start()
    while not server.started:
      assert thread.is_alive(), "the server did not start"
      time.sleep(0.05)
    yield run.address(taken)
    server.should_exit = True
    thread.join(30)
  assert service.close(30)
