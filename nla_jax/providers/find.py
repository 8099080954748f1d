"""Providers by name."""

from urllib.parse import urlsplit

from nla_jax.errors import NLAError
from nla_jax.providers.anthropic_api import Anthropic
from nla_jax.providers.openai_api import OpenAI
from nla_jax.providers.prices import Price, price_of
from nla_jax.providers.request import Provider

PROVIDERS = {"openai": OpenAI, "anthropic": Anthropic}
_OWN = ("127.0.0.1", "localhost", "::1")


def open_provider(name: str, model: str, url: str = "") -> Provider:
  """A model that somebody serves.

  Raises:
    NLAError: there is no provider of that name, no model is named, a package is missing, or there is no key.
  """
  if name not in PROVIDERS:
    raise NLAError(f"there is no provider {name!r}; expected {' or '.join(PROVIDERS)}")
  if not model:
    raise NLAError(f"no model of {name} is named; give its name there")
  return PROVIDERS[name](model, url)


def known_price(name: str, model: str, url: str, given=(), where: str = "") -> Price:
  """What a model costs; a server on this machine costs nothing unless `given` says so. Raises as `price_of`."""
  if not given and urlsplit(url).hostname in _OWN:
    return Price(0.0, 0.0)
  return price_of(name, model, given, where)
