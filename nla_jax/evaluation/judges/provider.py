"""A language model behind HTTP, OpenAI-compatible: asked at temperature 0, every answer kept, nothing paid twice.

An answer lies in a file under the hash of what was asked, before anyone reads it: an evaluation that is stopped, or
whose provider fails, goes on from there. What was paid is in the same files, so a ceiling holds over all evaluations
that share the folder.
"""

import concurrent.futures
import dataclasses
import hashlib
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from nla_jax import files
from nla_jax.errors import NLAError, first_line

_AT_ONCE = 8  # requests
_TRIES, _WAIT = (
  4,
  1.0,
)  # of a request, and seconds before the second; each next wait is twice as long
_AGAIN = (
  408,
  409,
  425,
  429,
  500,
  502,
  503,
  504,
  529,
)  # answers after which the same request may succeed
_CHARACTERS = 3  # of a token at least, for the price before it is known
_MILLION = 1e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provider:
  """Who is asked, and for how much.

  Attributes:
    url: of the API, such as https://host/v1.
    model: its name there.
    price_in: US dollars a million tokens that it reads.
    price_out: the same of tokens that it writes.
    ceiling: US dollars, for all answers in the folder together.
    folder: where answers are kept.
    key_variable: the environment variable that holds the key.
    max_tokens: of an answer.
    timeout: seconds.
  """

  url: str
  model: str
  price_in: float
  price_out: float
  ceiling: float
  folder: str
  key_variable: str = "NLA_JUDGE_KEY"
  max_tokens: int = 400
  timeout: float = 120.0


def read_provider(path: str | Path) -> Provider:
  """Reads a provider from a YAML file with the fields of `Provider`.

  Raises:
    NLAError: there is no such file, or a field is missing, unknown or of another type.
  """
  found = files.expect_file(path, "the file of the judge", "name one in config.suites.judge")
  try:
    fields = yaml.safe_load(Path(found).read_text(encoding="utf-8"))
  except (yaml.YAMLError, UnicodeDecodeError) as error:
    raise NLAError(f"{path} is no YAML ({first_line(error)})") from None
  known = {one.name: one for one in dataclasses.fields(Provider)}
  needed = [name for name, one in known.items() if one.default is dataclasses.MISSING]
  given = fields if isinstance(fields, dict) else {}
  missing = [name for name in needed if name not in given]
  if missing or not given.keys() <= known.keys():
    strange = ", ".join(map(str, given.keys() - known.keys()))
    raise NLAError(
      f"{path}: "
      + (f"{', '.join(missing)} missing" if missing else f"{strange} unknown")
      + f"; expected {', '.join(known)}"
    )

  for name, value in given.items():
    wanted = known[name].type
    if not isinstance(value, (int, float) if wanted in (float, int) else str) or value is True:
      raise NLAError(f"{path}: {name} is {value!r}, and a {wanted.__name__} is expected")
  if min(given["price_in"], given["price_out"], given["ceiling"]) < 0:
    raise NLAError(f"{path}: prices and the ceiling are dollars, 0 or more")
  return Provider(**given)


class Client:
  """Asks a provider, and remembers.

  Args:
    provider: who is asked.

  Attributes:
    spent: US dollars of all answers in the folder.

  Raises:
    NLAError: the folder holds something else.
  """

  def __init__(self, provider: Provider):
    self.provider, self._lock, self._reserved = provider, threading.Lock(), 0.0
    self._folder = Path(files.here(provider.folder))
    held = sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []
    self.spent = sum(float((files.read_json(path) or {}).get("usd", 0.0)) for path in held)

  def ask(self, prompts: Sequence[str]) -> list[str]:
    """The answer to each prompt, from the folder where it was asked before.

    Raises:
      NLAError: there is no key, the ceiling is reached, or the provider does not answer. What came before is kept.
    """
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
      # Equal prompts at once would be paid for twice.
      waiting = {one: pool.submit(self._answer, one) for one in dict.fromkeys(prompts)}
      try:
        answers = {one: future.result() for one, future in waiting.items()}
      except NLAError:
        pool.shutdown(cancel_futures=True)
        raise
    return [answers[one] for one in prompts]

  def _answer(self, prompt: str) -> str:
    p = self.provider
    asked = {
      "model": p.model,
      "messages": [{"role": "user", "content": prompt}],
      "temperature": 0,
      "max_tokens": p.max_tokens,
    }
    name = hashlib.sha256(json.dumps([p.url, asked], sort_keys=True).encode()).hexdigest()
    file = self._folder / f"{name}.json"
    held = files.read_json(file)
    if held is not None:
      return held["answer"]

    most = self._reserve(prompt)
    try:
      text, usd = _read(self._post(asked), p, most)
      files.write_json(file, {"asked": asked, "answer": text, "usd": usd})
      with self._lock:
        self.spent += usd
    finally:
      with self._lock:
        self._reserved -= most
    return text

  def _reserve(self, prompt: str) -> float:
    """What a request may cost at most, taken from the ceiling until it is known."""
    p = self.provider
    if not os.environ.get(p.key_variable):
      raise NLAError(f"the judge {p.model} needs a key: set {p.key_variable} in the environment")
    tokens = len(prompt) / _CHARACTERS
    most = (tokens * p.price_in + p.max_tokens * p.price_out) / _MILLION
    with self._lock:
      if self.spent + self._reserved + most > p.ceiling:
        raise NLAError(
          f"the judge {p.model} has cost ${self.spent:.4f} and its ceiling is ${p.ceiling:g}: raise `ceiling` in its "
          "file and run the same command again; what was answered is kept"
        )
      self._reserved += most
    return most

  def _post(self, asked: dict[str, Any]) -> dict[str, Any]:
    p = self.provider
    request = urllib.request.Request(
      p.url.rstrip("/") + "/chat/completions",
      data=json.dumps(asked).encode(),
      headers={
        "Content-Type": "application/json",
        "Authorization": f"Bearer {os.environ[p.key_variable]}",
      },
    )
    for attempt in range(_TRIES):
      try:
        with urllib.request.urlopen(request, timeout=p.timeout) as response:
          return json.loads(response.read())
      except urllib.error.HTTPError as error:
        reason, again = f"HTTP {error.code}", error.code in _AGAIN
      except (OSError, http.client.HTTPException, ValueError) as error:
        reason, again = first_line(error), True
      if not again:
        break
      if attempt < _TRIES - 1:
        time.sleep(_WAIT * 2**attempt)

    # The key must not stand in a message, whatever the reason holds.
    reason = reason.replace(os.environ[p.key_variable], "…")
    raise NLAError(
      f"the judge {p.model} at {p.url} does not answer ({reason}); run it again, what was answered is kept"
    )


def _read(response: dict[str, Any], provider: Provider, most: float) -> tuple[str, float]:
  """The text of a response and what it cost in dollars; `most` where the provider does not say."""
  try:
    text = response["choices"][0]["message"]["content"] or ""
  except (KeyError, IndexError, TypeError):
    raise NLAError(f"the judge {provider.model} answered in another form than OpenAI's") from None
  usage = response.get("usage") or {}
  if "prompt_tokens" not in usage or "completion_tokens" not in usage:
    return text, most
  read, written = usage["prompt_tokens"], usage["completion_tokens"]
  return text, (read * provider.price_in + written * provider.price_out) / _MILLION
