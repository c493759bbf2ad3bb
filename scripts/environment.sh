# shellcheck shell=bash
# Sourced by demo, test and check: finds Python, brings uv, builds the wheel, makes virtual environments.
# Writes inside the checkout, the temporary folder and the caches of pip and uv, nowhere else.

set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd -- "$root"
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '\n== %s\n' "$*"; }

fail() {
  printf '\n%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# The path of the interpreter behind a command, if it is Python 3.10 or later.
interpreter() {
  "$1" -c 'import sys; sys.version_info >= (3, 10) or sys.exit(1); print(sys.executable)' 2>/dev/null
}

# Sets `python`: the first Python of 3.10 or later.
find_python() {
  local name
  for name in python3 python python3.14 python3.13 python3.12 python3.11 python3.10; do
    python=$(interpreter "$name") && return
  done
  fail "no Python of 3.10 or later on PATH; install one (Debian, Ubuntu: apt-get install python3 python3-pip)"
}

# Sets `uv`, which makes the environments; brought by pip into .venv-tools, where it disturbs nothing.
bring_uv() {
  uv=$root/.venv-tools/bin/uv
  "$uv" --version >/dev/null 2>&1 && return
  say "uv into .venv-tools"
  rm -rf .venv-tools
  local pip=("$python" -m pip)
  if ! "${pip[@]}" --version >/dev/null 2>&1; then
    "$python" -m venv .venv-tools/pip >/dev/null 2>&1 ||
      fail "$python has no pip; install it (Debian, Ubuntu: apt-get install python3-pip)"
    pip=(.venv-tools/pip/bin/python -m pip)
  fi
  "${pip[@]}" install --quiet --upgrade --target .venv-tools uv </dev/null ||
    fail "pip could not install uv; check the network, or pip's index settings, and run it again"
}

# uv reads no settings of pip's, and trusts its own list of authorities: hand on an index and certificates
# that pip was given, and trust what the machine trusts (some networks have an authority of their own).
follow_pip() {
  local index cert
  index=${PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null || true)}
  cert=${PIP_CERT:-$("$python" -m pip config get global.cert 2>/dev/null || true)}
  if [[ -n $index && -z ${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-} ]]; then export UV_DEFAULT_INDEX=$index; fi
  if [[ -n $cert && -z ${SSL_CERT_FILE:-} ]]; then export SSL_CERT_FILE=$cert; fi
  if [[ -s /etc/ssl/certs/ca-certificates.crt ]]; then export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}; fi
}

# Everything that makes an environment starts here.
prepare() {
  find_python
  bring_uv
  follow_pip
}

# Sets `wheel`, built from the checkout as it stands.
build_wheel() {
  say "wheel"
  rm -rf dist
  "$uv" build --quiet --wheel --python "$python" --out-dir dist ||
    fail "the wheel did not build; the lines above say why"
  wheel=$(echo "$root"/dist/bedside-*.whl)
  echo "${wheel##*/}, $(($(wc -c <"$wheel") / 1000)) kB"
}

# make_environment FOLDER PYTHON ARGUMENTS...: `uv pip install ARGUMENTS` into a new virtual environment.
# Kept as it is while Python, the arguments and pyproject.toml (but for its tool tables) stay the same.
make_environment() {
  local folder=$1 interpreter=$2 stamp
  shift 2
  stamp=$("$interpreter" -VV; printf '%s\n' "$*"; sed '/^\[tool\./,$d' pyproject.toml)
  if [[ -f $folder/stamp && $(<"$folder/stamp") == "$stamp" ]]; then return; fi
  say "$folder: $("$interpreter" -V), $*"
  rm -rf "$folder"
  "$uv" venv --quiet --python "$interpreter" "$folder" ||
    fail "$folder could not be made; the lines above say why"
  "$uv" pip install --quiet --python "$folder/bin/python" "$@" ||
    fail "$folder could not be filled; if the network failed, run it again, else see the lines above"
  printf '%s\n' "$stamp" >"$folder/stamp"
}

# install_wheel FOLDER EXTRAS [ARGUMENTS...]: an environment that holds the wheel as it was built just now.
install_wheel() {
  local folder=$1 interpreter=$2 extras=$3
  shift 3
  make_environment "$folder" "$interpreter" "$@" "$wheel$extras"
  renew_wheel "$folder"
}

# renew_wheel FOLDER: the wheel as it was built just now, into an environment that has what it needs.
renew_wheel() {
  "$uv" pip install --quiet --python "$1/bin/python" --no-deps --reinstall "$wheel" ||
    fail "the wheel could not be installed into $1; remove that folder and run it again"
}
