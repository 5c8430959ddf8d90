#!/usr/bin/env bash
# install.sh: the load generator, the mock engine and the compared gateways, each in an environment of its own.
#
# What cannot be installed is said and left out; the benchmark then reports that system as failed.
# The environments lie in the user's cache, with a link `.peers` to them: nothing of this repository may find their files.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) root=$(cd "$(dirname "$0")/../.." && pwd)
python=$root/.venv/bin/python uv=$root/.venv/bin/uv
peers=${XDG_CACHE_HOME:-$HOME/.cache}/llmgw-bench/gateway-peers
export UV_NATIVE_TLS=1
[ -x "$uv" ] || { echo "the project's own environment comes first: make lint" >&2; exit 1; }
mkdir -p "$peers"
ln -sfn "$peers" "$here/.peers"

command -v nginx >/dev/null && [ -e /usr/lib/nginx/modules/ngx_http_lua_module.so ] ||
  bash "$root/deploy/apt.sh" nginx libnginx-mod-http-lua
command -v wrk >/dev/null || bash "$root/deploy/apt.sh" wrk

# fresh NAME FILE: true when what FILE says is installed already.
fresh() { [ "$(cat "$peers/$1/.installed" 2>/dev/null)" = "$(sha256sum <"$2")" ]; }
stamp() { sha256sum <"$2" >"$peers/$1/.installed"; }

python_peer() {
  local name=$1 list=$here/requirements/$1.txt
  fresh "$name" "$list" && return
  echo "installing $name"
  "$uv" venv -q --clear --python "$python" "$peers/$name" &&
    "$uv" pip install -q --no-deps --python "$peers/$name/bin/python" -r "$list" &&
    { "$peers/$name/bin/python" -m compileall -q "$peers/$name/lib" >/dev/null 2>&1 || true; } &&
    stamp "$name" "$list"
}

npm_peer() {
  local name=$1 list=$here/requirements/$1/package-lock.json
  fresh "$name" "$list" && return
  echo "installing $name"
  command -v npm >/dev/null || bash "$root/deploy/apt.sh" nodejs npm || return
  mkdir -p "$peers/$name" && cp "$here/requirements/$name/"* "$peers/$name" &&
    (cd "$peers/$name" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null) &&
    stamp "$name" "$list"
}

python_peer tools
for name in vllm-router sgl-router tensorzero litellm; do
  python_peer "$name" || echo "not installed: $name" >&2
done
npm_peer portkey || echo "not installed: portkey" >&2
