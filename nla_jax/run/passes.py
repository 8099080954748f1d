"""How often training sees its data, in words: more batch than data is memorised, less leaves data unseen."""


def passes(seen: float, rows: int) -> str:
  """Says how often each of `rows` rows is taken where `seen` are taken in all: "each row 320 times"."""
  share = seen / max(rows, 1)
  if share >= 1:
    return f"each row {share:,.{0 if share >= 10 else 1}f} times"
  return f"{share:.2g} of the rows"


def described(seen: int, rows: int) -> str:
  """`seen` examples of `rows` rows and how often that is each; the number alone where `rows` is 0, not known."""
  return f"{seen:,} of {rows:,} rows: {passes(seen, rows)}" if rows else f"{seen:,}"
