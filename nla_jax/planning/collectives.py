"""What devices send to each other, read from the text of a compiled program.

A collective inside a loop counts as often as the loop runs. Bytes are those that one device receives by the usual ring
algorithms. Of a result of n bytes in a group of g devices, an all-gather brings n(g-1)/g, a reduce-scatter n(g-1), an
all-reduce 2n(g-1)/g, an all-to-all n(g-1)/g and a permutation n.
"""

import collections
import math
import re
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_RECEIVED = {
  "all-gather": lambda n, g: n * (g - 1) / g,
  "all-reduce": lambda n, g: 2 * n * (g - 1) / g,
  "reduce-scatter": lambda n, g: n * (g - 1),
  "all-to-all": lambda n, g: n * (g - 1) / g,
  "collective-permute": lambda n, g: n,
}
_BYTES = {
  "pred": 1,
  "s8": 1,
  "u8": 1,
  "s16": 2,
  "u16": 2,
  "bf16": 2,
  "f16": 2,
  "s32": 4,
  "u32": 4,
  "f32": 4,
  "s64": 8,
  "u64": 8,
  "f64": 8,
}
_SHAPE = re.compile(r"\b(" + "|".join(_BYTES) + r")\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z\-]*)\((.*)$")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")


class Collective(NamedTuple):
  """One collective of a program.

  Attributes:
    kind: one of KINDS.
    received: bytes that a device receives each time.
    times: how often it runs in a call of the program.
    in_loop: whether it is inside a `while` loop.
    shapes: its results, as the text has them: [(dtype, shape)].
    operation: where in the traced program it comes from (`op_name`), or "".
  """

  kind: str
  received: float
  times: int
  in_loop: bool
  shapes: tuple[tuple[str, tuple[int, ...]], ...]
  operation: str


class _Instruction(NamedTuple):
  name: str
  result: str
  opcode: str
  rest: str


def shapes_of(text: str) -> list[tuple[str, tuple[int, ...]]]:
  """All (dtype, shape) that a piece of HLO text names."""
  return [
    (dtype, tuple(int(n) for n in dims.split(",") if n)) for dtype, dims in _SHAPE.findall(text)
  ]


def collectives(text: str, devices: int) -> list[Collective]:
  """The collectives of a compiled program.

  Args:
    text: `compiled.as_text()`.
    devices: of the whole program, which are a group where the text names none.

  Returns:
    one entry for each collective. XLA may split one over several fused pieces of its neighbours' work; these share a
    channel and count once.
  """
  computations, entry = _computations(text)
  found: dict[str, Collective] = {}
  for name, (times, in_loop) in _times(computations, entry).items():
    for instruction in computations[name]:
      one = _collective(instruction, times, in_loop, devices)
      if one is None:
        continue

      # Of the pieces of one channel the largest is the whole.
      channel = re.search(r"channel_id=(\d+)", instruction.rest)
      key = channel[1] if channel else f"{name}/{instruction.name}"
      if key not in found or found[key].received * found[key].times < one.received * one.times:
        found[key] = one
  return list(found.values())


def _collective(
  instruction: _Instruction, times: int, in_loop: bool, devices: int
) -> Collective | None:
  """The collective that an instruction of a computation that runs so often is, or None."""
  kind = instruction.opcode.removesuffix("-start")
  if kind not in KINDS:
    return None

  # The asynchronous form gives a pair (operands, results), except for an all-reduce.
  shapes = shapes_of(instruction.result)
  if instruction.opcode.endswith("-start") and kind != "all-reduce":
    shapes = shapes[len(shapes) // 2 :] if len(shapes) > 1 else shapes
  size = sum(_BYTES[dtype] * math.prod(shape) for dtype, shape in shapes)

  # A collective from before a loop that is hidden, piece by piece, behind the loop's products still runs once.
  operation = re.search(r'op_name="([^"]*)"', instruction.rest)
  operation = operation[1] if operation else ""
  hidden = "chain_id" in instruction.rest and "while/body" not in operation
  return Collective(
    kind,
    _RECEIVED[kind](size, _group_size(instruction.rest, devices)),
    1 if hidden else times,
    in_loop and not hidden,
    tuple(shapes),
    operation,
  )


def bytes_by_kind(found: list[Collective]) -> dict[str, float]:
  """Bytes that a device receives in one call of the program, by kind."""
  total = collections.Counter()
  for one in found:
    total[one.kind] += one.received * one.times
  return dict(total)


def _computations(text: str) -> tuple[dict[str, list[_Instruction]], str]:
  """Instructions by computation, and the entry's name."""
  # Computations are not nested in the text: each line belongs to the last header.
  computations, current, entry = {}, None, ""
  for line in text.splitlines():
    header = _COMPUTATION.match(line)
    if header:
      current = computations.setdefault(header[2], [])
      entry = header[2] if header[1] else entry
    elif current is not None and (instruction := _INSTRUCTION.match(line)):
      current.append(_Instruction(*instruction.groups()))
  return computations, entry


def _times(computations: dict[str, list[_Instruction]], entry: str) -> dict[str, tuple[int, bool]]:
  """How often each computation runs in a call, and whether inside a loop."""
  times: dict[str, tuple[int, bool]] = {}

  def visit(name: str, count: int, in_loop: bool) -> None:
    # A computation called from several places counts as often as the most frequent of them.
    if name not in computations or times.get(name, (0, False))[0] >= count:
      return
    times[name] = (count, in_loop)
    for instruction in computations[name]:
      looping = instruction.opcode == "while"
      trips = _trips(instruction.rest, computations) if looping else 1
      called = _CALLED.findall(instruction.rest)
      for group in _BRANCHES.findall(instruction.rest):
        called += [one.strip().lstrip("%") for one in group.split(",")]
      for one in called:
        visit(one, count * trips, in_loop or looping)

  visit(entry, 1, False)
  return times


def _trips(rest: str, computations: dict[str, list[_Instruction]]) -> int:
  """A loop's trips: what the compiler knows, or the constant that its condition compares with."""
  known = re.search(r"known_trip_count[^\d]*(\d+)", rest)
  if known:
    return int(known[1])

  # A loop from 0 compares its counter with the number of trips.
  condition = re.search(r"condition=%?([\w.\-]+)", rest)
  constants = _constants(computations, condition[1]) if condition else []
  return max(constants, default=1)


def _constants(computations, name: str) -> list[int]:
  """Integer constants of a computation and of those that it calls."""
  found = []
  for instruction in computations.get(name, []):
    if instruction.opcode == "constant" and instruction.result.startswith("s32[]"):
      value = re.match(r"(\d+)\)", instruction.rest)
      found += [int(value[1])] if value else []
    for called in _CALLED.findall(instruction.rest):
      found += _constants(computations, called)
  return found


def _group_size(rest: str, devices: int) -> int:
  """Devices of one group of a collective, in any of the ways that HLO writes groups; all where it names none."""
  # {{0,1},{2,3}}
  listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
  if listed:
    return max(len(listed[1].split(",")), 1)

  # [2,4]<=[8]: two groups of four.
  iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=", rest)
  if iota:
    return int(iota[2])

  # mesh['a'=2,'b'=4] {'b'}: along axes of a mesh.
  named = re.search(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\([^)]*\)+)? ?\{([^}]*)\}", rest
  )
  if named:
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
    return math.prod(
      int(sizes[axis.split(":")[0].strip("' ")]) for axis in named[2].split(",") if axis.strip()
    )
  return devices
