#!/usr/bin/env bash
# Reads a model's thoughts in a browser: sets up .venv, starts `nla serve` and prints the page's address.
# The first argument names the pair: package:NAME, a workdir of `nla run`, a folder with av/ and ar/, or a hub id. Without
# one it is the pair in the box, packages/nla_smollm2. More arguments are passed on to `nla serve`.
#   bash launch/explore.sh
#   bash launch/explore.sh runs/smollm2_135m --port=8080
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

pair=""
if [[ $# -gt 0 && "$1" != -* ]]; then
  pair="$1"
  shift
fi
for argument in "$@"; do
  case "$argument" in
    --nla | --nla=*) pair="named" ;;  # `nla serve` reads it itself
  esac
done
if [[ -z "$pair" ]] && ! box_is_here; then
  echo "no pair is named and this checkout holds none in packages/nla_smollm2: bash launch/explore.sh PAIR, such as" \
    "runs/smollm2_135m after bash launch/local.sh" >&2
  exit 2
fi

prepare_environment read serve
if [[ -z "$pair" ]]; then
  prepare_box
  pair="package:nla_smollm2"
fi
if [[ "$pair" == "named" ]]; then
  exec "$VENV/bin/nla" serve "$@"
fi
exec "$VENV/bin/nla" serve --nla="$pair" "$@"
