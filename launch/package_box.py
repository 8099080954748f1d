"""Writes the pair of a finished or half-finished run into packages/nla_smollm2, the NLA in the box.

python launch/package_box.py runs/box
pip wheel --no-deps ./packages/nla_smollm2 --wheel-dir dist     # a wheel to hand on
"""

import argparse
import sys
from pathlib import Path

from nla_jax.errors import NLAError
from nla_jax.run.package import write_package

BOX = Path(__file__).parent.parent / "packages" / "nla_smollm2" / "nla_smollm2"


def main() -> int:
  """Returns 0, or 2 after one line that says what is wrong."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("workdir", help="of the run, which may still be at work")
  parser.add_argument("--package", default=BOX, help="the importable folder that is written to")
  options = parser.parse_args()
  try:
    write_package(options.workdir, options.package)
  except NLAError as error:
    print(f"package_box: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
