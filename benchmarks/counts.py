"""Counts of the package's own code that `docs/architecture.md` shows: how long, how dense, how commented.

  python benchmarks/counts.py [FOLDER …] [--list]

Without folders the whole package and the kernels; `--list` names what is over a limit. The exit status is 1 where
something is.
"""

import argparse
import ast
import io
import tokenize
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
ARRAY_CODE = ("models", "decoding", "autoencoder", "training", "kernels")
FUNCTION_LINES, PARAMETERS, MODULE_LINES = 60, 8, 350
BLANK, COMMENT, TOKENS = 6.0, 5.0, 11.0  # per cent at least, per cent at least, at most
TABLES = ("default_config",)  # a table of defaults may be long
_OPERATIONS = (
  ast.Call,
  ast.BinOp,
  ast.BoolOp,
  ast.Compare,
  ast.IfExp,
  ast.Subscript,
  ast.ListComp,
  ast.SetComp,
  ast.DictComp,
  ast.GeneratorExp,
)
_CODE = (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING)


class Counts(NamedTuple):
  """What is counted in one module.

  Attributes:
    modules: (lines, where), of a module that is too long; likewise the next three.
    functions: (lines, where).
    parameters: (parameters, where).
    lambdas: (operations, where), of a lambda with a name.
    inside: lines inside functions, docstrings left out.
    blank: of these, blank ones.
    comment: of these, comments.
    code: lines with code, in the whole module.
    tokens: on those lines.
  """

  modules: list
  functions: list
  parameters: list
  lambdas: list
  inside: int
  blank: int
  comment: int
  code: int
  tokens: int


def count(path: Path) -> Counts:
  """The counts of one module."""
  text = path.read_text()
  lines, tree = text.splitlines(), ast.parse(text)
  where = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()
  functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
  docstrings = _docstring_lines(tree)

  inside = set()
  for node in functions:
    inside.update(range(node.body[0].lineno, node.end_lineno + 1))
  inside -= docstrings

  tokens = {}
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    row = token.start[0]
    if token.type in _CODE and row not in docstrings:
      tokens[row] = tokens.get(row, 0) + 1

  return Counts(
    [(len(lines), where)] if len(lines) > MODULE_LINES else [],
    [
      (n.end_lineno - n.lineno + 1, f"{where}:{n.lineno} {n.name}")
      for n in functions
      if n.end_lineno - n.lineno + 1 > FUNCTION_LINES and n.name not in TABLES
    ],
    [
      (_parameters(n), f"{where}:{n.lineno} {n.name}")
      for n in functions
      if _parameters(n) > PARAMETERS
    ],
    _long_lambdas(tree, where),
    len(inside),
    sum(not lines[row - 1].strip() for row in inside),
    sum(lines[row - 1].strip().startswith("#") for row in inside),
    len(tokens),
    sum(tokens.values()),
  )


def _docstring_lines(tree: ast.Module) -> set[int]:
  owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  found = set()
  for node in ast.walk(tree):
    if isinstance(node, owners) and ast.get_docstring(node) is not None:
      found.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
  return found


def _parameters(node: ast.FunctionDef) -> int:
  every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
  return len(every) - (bool(every) and every[0].arg in ("self", "cls"))


def _long_lambdas(tree: ast.Module, where: str) -> list:
  found = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
      operations = sum(isinstance(one, _OPERATIONS) for one in ast.walk(node.value.body))
      if operations > 1:
        found.append((operations, f"{where}:{node.lineno}"))
  return found


def _share(part: int, whole: int) -> float:
  return 100 * part / max(whole, 1)


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("folders", nargs="*", type=Path)
  parser.add_argument("--list", action="store_true", help="name what is over a limit")
  options = parser.parse_args()
  folders = [folder.absolute() for folder in options.folders] or [
    ROOT / "nla_jax",
    ROOT / "kernels",
  ]
  paths = sorted(
    {path for one in folders for path in ([one] if one.is_file() else one.rglob("*.py"))}
  )
  counted = {path: count(path) for path in paths}

  def total(field: str, of=paths):
    return sum(
      (getattr(counted[path], field) for path in of), [] if field in Counts._fields[:4] else 0
    )

  array_code = [path for path in paths if set(ARRAY_CODE) & set(path.relative_to(ROOT).parts)]
  inside = total("inside")
  rows = [
    (f"modules over {MODULE_LINES} lines", len(total("modules")), 0, False),
    (f"functions over {FUNCTION_LINES} lines", len(total("functions")), 0, False),
    (f"functions with more than {PARAMETERS} parameters", len(total("parameters")), 0, False),
    ("named lambdas of more than one operation", len(total("lambdas")), 0, False),
    ("blank lines inside functions, %", _share(total("blank"), inside), BLANK, True),
    ("comment lines inside functions, %", _share(total("comment"), inside), COMMENT, True),
    (
      "tokens a code line, array code",
      total("tokens", array_code) / max(total("code", array_code), 1),
      TOKENS,
      False,
    ),
  ]
  failed = False
  for name, value, limit, at_least in rows:
    over = value < limit if at_least else value > limit
    failed |= over
    bound = f"{'at least' if at_least else 'at most'} {limit:g}"
    print(f"{name:45s} {value:8.4g}   {bound:14s} {'<-' if over else ''}".rstrip())
  print(f"lines inside functions {inside}, modules {len(paths)}")

  if options.list:
    for field in Counts._fields[:4]:
      for number, where in sorted(total(field), reverse=True):
        print(f"  {field}: {number}  {where}")
    sparse = sorted(paths, key=lambda path: -(counted[path].inside * 0.05 - counted[path].comment))
    for path in sparse[:20]:
      c = counted[path]
      print(
        f"  {path.relative_to(ROOT)}: {c.inside} lines inside functions,"
        f" {_share(c.blank, c.inside):.1f} % blank, {_share(c.comment, c.inside):.1f} % comments"
      )
  return int(failed)


if __name__ == "__main__":
  raise SystemExit(main())
