#!/usr/bin/env bash
# The whole method on this machine: sets up .venv, then runs every stage of configs/smollm2_135m.py.
# Arguments are passed on to `nla run`; a --config or --workdir among them takes the place of the one here.
#   bash launch/local.sh
#   bash launch/local.sh --config.preset=long --workdir=runs/long
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

config="--config=$CHECKOUT/configs/smollm2_135m.py"
for argument in "$@"; do
  case "$argument" in
    --config | --config=* | -config | -config=*) config="" ;;  # a second --config would be an error
  esac
done

prepare_environment demo
exec "$VENV/bin/nla" run ${config:+"$config"} --workdir="$CHECKOUT/runs/smollm2_135m" "$@"
