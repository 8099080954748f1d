"""The house stands: a folder imports only folders below it, and no module is in a circle."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "nla_jax"
# From the ground up; `docs/architecture.md` says what lives where. Rooms of one line may import each other.
FLOORS = (
  "errors version",
  "bucket parallel",
  "arrays axes files json_lines progress quantities workdir",
  "providers",
  "kernels",
  "models",
  "decoding",
  "autoencoder conversation reading",
  "data",
  "interop",
  "config config_section",
  "training",
  "evaluation",
  "planning",
  "run",
  "loading",
  "auditing organisms tracing",
  "game",
  "inspect_plugin serving watching",
  "cli",
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}


def imports() -> dict[str, set[str]]:
  """Modules of the package that each module imports, in functions too."""
  paths = {_module(path): path for path in PACKAGE.rglob("*.py")}
  found = {}
  for module, path in paths.items():
    wanted = set()
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        wanted |= {alias.name for alias in node.names}
      elif isinstance(node, ast.ImportFrom) and node.module:
        names = {f"{node.module}.{alias.name}" for alias in node.names}
        wanted |= {name if name in paths else node.module for name in names}
    found[module] = {name for name in wanted if name.startswith("nla_jax")} - {module}
  return found


def _module(path: Path) -> str:
  parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
  return ".".join(parts).removesuffix(".__init__")


def _room(module: str) -> str:
  return module.split(".")[1]


def test_no_module_imports_a_room_above_its_own():
  upward = [
    f"{module} -> {other}"
    for module, others in imports().items()
    if module != "nla_jax"
    for other in others
    if other == "nla_jax" or FLOOR[_room(other)] > FLOOR[_room(module)]
  ]
  assert upward == []


def test_no_module_is_in_a_circle():
  graph, done = imports(), set()

  def visit(module: str, above: tuple[str, ...]) -> None:
    assert module not in above, " -> ".join([*above[above.index(module) :], module])
    if module not in done:
      for other in graph.get(module, ()):
        visit(other, (*above, module))
      done.add(module)

  for module in graph:
    visit(module, ())


def test_every_room_has_its_floor():
  assert {_room(module) for module in imports() if module != "nla_jax"} <= FLOOR.keys()
