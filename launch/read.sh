#!/usr/bin/env bash
# Reads what a model thinks at a token of a text, in words: sets up .venv, then runs `nla read` with the pair in the box,
# packages/nla_smollm2. Arguments are those of `nla read`; an --nla among them takes the place of the box.
#   bash launch/read.sh "The capital of France is"
#   bash launch/read.sh --positions=every:4 --best-of=8 "The capital of France is"
#   bash launch/read.sh --nla=runs/smollm2_135m --file=chats.jsonl
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

pair="package:nla_smollm2"
for argument in "$@"; do
  case "$argument" in
    --nla | --nla=*) pair="" ;;  # `nla read` reads it itself
  esac
done
if [[ -n "$pair" ]] && ! box_is_here; then
  echo "this checkout holds no pair in packages/nla_smollm2: name one, bash launch/read.sh --nla=PAIR \"TEXT\", such as" \
    "runs/smollm2_135m after bash launch/local.sh" >&2
  exit 2
fi

# What is said of the environment is not what is read.
prepare_environment read >&2
[[ -z "$pair" ]] || prepare_box >&2
exec "$VENV/bin/nla" read ${pair:+--nla="$pair"} "$@"
