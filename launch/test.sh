#!/usr/bin/env bash
# The whole test suite, slow tests on the real model included. Arguments are passed on to pytest.
#   bash launch/test.sh
#   bash launch/test.sh -m "not slow" tests/models
#   bash launch/test.sh --long     # with the tests that take minutes each and rarely break
# A file of tests at a time on each of up to four cores (`-n 0`: one after the other in one process).
# NLA_TEST_EXTRAS="demo test" leaves out the comparison with torch (several GB where only its CUDA build is to be had).
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

read -ra extras <<<"${NLA_TEST_EXTRAS:-demo test parity}"
prepare_environment "${extras[@]}"
cd "$CHECKOUT"
"$VENV/bin/python" -m ruff check
"$VENV/bin/python" -m ruff format --check
# -P keeps the checkout itself off the path: its folder kernels/ must not pass for the package of that name.
PYTHONPATH="$VENV/nla/libtpu" "$VENV/bin/python" -P -m pytest -q -n auto --maxprocesses=4 --dist=loadfile "$@"
