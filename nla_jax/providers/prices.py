"""What a request costs: by the table in the package genai-prices, or as the user says."""

from collections.abc import Sequence
from typing import NamedTuple

from nla_jax.errors import NLAError
from nla_jax.providers.optional import need

BATCH_DISCOUNT = 0.5  # of both vendors' batch endpoints; the table does not say it


class Price(NamedTuple):
  """US dollars a million tokens.

  Attributes:
    input: of what is asked.
    output: of what is answered.
  """

  input: float
  output: float

  def of(self, input_tokens: float, output_tokens: float) -> float:
    """US dollars for so many tokens."""
    return (input_tokens * self.input + output_tokens * self.output) / 1e6


def price_of(provider: str, model: str, given: Sequence[float] = (), where: str = "") -> Price:
  """The price of a model's tokens.

  Args:
    provider: `openai` or `anthropic`.
    model: its name there.
    given: (input, output) in US dollars a million tokens; where empty, the table is asked.
    where: what the user may set `given` by, for the message.

  Raises:
    NLAError: the table does not know the model, so that a ceiling would be none.
  """
  if given:
    if len(given) != 2 or not all(isinstance(one, int | float) and one >= 0 for one in given):
      raise NLAError(
        f"the price {tuple(given)!r} is not (input, output) in US dollars a million tokens; set {where or 'it'} so"
      )
    return Price(float(given[0]), float(given[1]))

  genai_prices = need("genai_prices", "genai-prices", "a price")
  million = genai_prices.Usage(input_tokens=1_000_000, output_tokens=0)
  answered = genai_prices.Usage(input_tokens=0, output_tokens=1_000_000)
  try:
    found = [
      genai_prices.calc_price(usage, model_ref=model, provider_id=provider).total_price
      for usage in (million, answered)
    ]
  except LookupError:
    raise NLAError(
      f"what {model} of {provider} costs is not known to genai-prices; say it in US dollars a million tokens of "
      f"input and output{f' with {where}' if where else ''} (0,0 where it is free)"
    ) from None
  return Price(*map(float, found))
