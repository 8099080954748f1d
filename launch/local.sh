#!/usr/bin/env bash
# The whole method on this machine: sets up .venv, then runs every stage of configs/smollm2_135m.py.
# Arguments are passed on to `nla run`; a --config or --workdir among them wins over the ones here.
#   bash launch/local.sh
#   bash launch/local.sh --config.preset=long --workdir=runs/long
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment demo
exec "$VENV/bin/nla" run --config="$CHECKOUT/configs/smollm2_135m.py" --workdir="$CHECKOUT/runs/smollm2_135m" "$@"
