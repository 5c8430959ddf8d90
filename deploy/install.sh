#!/usr/bin/env bash
# install.sh VENV: makes the Python environment, exactly as requirements.lock says, with uv.
set -euo pipefail
venv=$1 here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || python=python3
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null ||
  { echo "Python 3.11 is needed (found: $("$python" --version 2>&1)); set PYTHON=/path/to/python3.11" >&2; exit 1; }
# Debian keeps pip's wheel and the OpenMP runtime of llama.cpp in packages of their own.
"$python" -c 'import ensurepip' 2>/dev/null || bash "$here/apt.sh" python3-venv
ldconfig -p 2>/dev/null | grep -q libgomp.so.1 || bash "$here/apt.sh" libgomp1
[ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check "uv==$UV_VERSION"
uv() { "$venv/bin/uv" pip "$@" --python "$venv/bin/python"; }
echo "installing $(grep -c == "$here/../requirements.lock") packages into $venv"
uv install -q --no-deps --require-hashes --compile-bytecode -r "$here/../requirements.lock"
uv install -q --no-deps --no-build-isolation --editable "$here/.."
