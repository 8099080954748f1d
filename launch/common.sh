# shellcheck shell=bash
# Sourced by the launchers for other machines. `parse "$@"` sets OPTION[name] from --name=value up to `--`, DRY from
# --dry-run, and puts what follows `--` into NLA_ARGS; `run COMMAND...` does it, or prints exactly what it would do.

declare -A OPTION
NLA_ARGS=()
DRY=""

parse() {
  while [[ $# -gt 0 ]]; do
    case "$1" in
      --dry-run) DRY=yes ;;
      --) shift; NLA_ARGS=("$@"); break ;;
      --*=*) local name="${1%%=*}"; OPTION["${name#--}"]="${1#*=}" ;;
      *) echo "$1: expected --name=value, --dry-run, or -- and the arguments of nla run" >&2; return 2 ;;
    esac
    shift
  done
  if [[ ${#NLA_ARGS[@]} -eq 0 ]]; then
    echo "nothing to run: end with -- --config=FILE.py --workdir=FOLDER" >&2
    return 2
  fi
}

# option NAME [DEFAULT]: a value, or an error where it has no default.
option() {
  local value="${OPTION[$1]-${2-}}"
  if [[ -z "$value" && $# -lt 2 ]]; then
    echo "--$1=… is missing" >&2
    exit 2
  fi
  printf '%s' "$value"
}

quoted() { printf '%q ' "$@"; }

run() {
  if [[ -n "$DRY" ]]; then
    quoted "$@"
    printf '\n'
  else
    "$@"
  fi
}
