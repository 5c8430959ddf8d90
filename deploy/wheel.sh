#!/usr/bin/env bash
# wheel.sh VENV OUT: builds the wheel, with what pyproject.toml names compiled; needs a C compiler and Python's headers.
set -euo pipefail
venv=$1 out=$2 here=$(cd "$(dirname "$0")" && pwd)
headers=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
command -v cc >/dev/null || bash "$here/apt.sh" gcc libc6-dev
[ -e "$headers/Python.h" ] || bash "$here/apt.sh" python3-dev
HATCH_BUILD_HOOK_ENABLE_MYPYC=1 \
  "$venv/bin/uv" build -q --no-build-isolation --python "$venv/bin/python" --out-dir "$out" "$here/.."
