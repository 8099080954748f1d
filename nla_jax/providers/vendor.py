"""What the two client libraries have in common: both are made by one generator."""

import contextlib
import os

from nla_jax.errors import NLAError
from nla_jax.providers.errors import TIMEOUT, TRIES, told
from nla_jax.providers.optional import need


class Vendor:
  """A model behind a vendor's client library.

  Args:
    model: its name there.
    url: of another server with the same interface, such as http://127.0.0.1:8000/v1; empty is the vendor's own.

  Attributes:
    name: of the vendor, which is that of its package.
    client_class: of the package.
    key: the environment variable that holds the key.

  Raises:
    NLAError: the package is not installed, or there is no key for the vendor itself.
  """

  name: str
  client_class: str
  key: str

  def __init__(self, model: str, url: str = ""):
    self._library = need(self.name, self.name, f"asking a model of {self.client_class}'s interface")
    key = os.environ.get(self.key, "")
    if not key and not url:
      raise NLAError(f"{self.key} is not set: {self.client_class} answers nobody without a key")
    self.model, self.own, self._address = model, not url, url or self.client_class

    # Servers of one's own mostly take any key, and the library wants one.
    make = getattr(self._library, self.client_class)
    self._client = make(
      api_key=key or "none", base_url=url or None, max_retries=TRIES, timeout=TIMEOUT
    )

  def _told(self) -> contextlib.AbstractContextManager[None]:
    return told(self._library, self.key, self.model, self._address)
