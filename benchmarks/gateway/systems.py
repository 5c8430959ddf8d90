"""The systems that are compared: how each is started, asked and named. One worker each, in its fair configuration."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from benchmarks.gateway import machine
from benchmarks.gateway.dialect import KEY, Dialect, LangServe, OpenAI
from benchmarks.gateway.machine import PEERS
from benchmarks.gateway.mock import nginx, render

OURS = "llmgw"
CLONE = f"{OURS}-clone"  # interpreted
_WHEEL = machine.ROOT / ".wheel"
_BIN = Path(sys.executable).parent


class NotInstalled(Exception):
    """What install.sh should have put there is not."""


@dataclass(frozen=True)
class Site:
    """Where one system runs.

    Attributes:
        folder: its own, for configuration and log.
        redis_url: of the Redis beside it.
    """

    folder: Path
    port: int
    mock_port: int
    redis_url: str
    workers: int = 1

    @property
    def mock_url(self) -> str:
        return f"http://127.0.0.1:{self.mock_port}"


@dataclass(frozen=True)
class Launch:
    argv: list[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """One compared system.

    Attributes:
        launch: how it is started; None for the mock engine itself.
        ready: the path that answers 200 when it can serve; empty: it chooses its port by itself, and is ready when it
            has printed its address.
        headers: beside the key and the content type; `{mock}` is the mock engine's address.
    """

    name: str
    version: Callable[[], str]
    launch: Callable[[Site], Launch] | None
    ready: str = "/health"
    dialect: Dialect = field(default_factory=OpenAI)
    headers: Mapping[str, str] = field(default_factory=dict)


def _peer(environment: str, command: str) -> str:
    path = PEERS / environment / "bin" / command
    if not path.exists():
        raise NotInstalled(f"{environment} is not installed: bash benchmarks/gateway/install.sh")
    return str(path)


def _peer_version(environment: str, package: str) -> Callable[[], str]:
    def find() -> str:
        found = sorted(PEERS.glob(f"{environment}/lib/python3*/site-packages/{package}-*.dist-info"))
        return found[0].name.removesuffix(".dist-info").rpartition("-")[2] if found else ""

    return find


def _nginx(site: Site) -> Launch:
    return Launch(nginx("nginx.conf", site.folder, port=site.port, mock_port=site.mock_port))


def _vllm_router(site: Site) -> Launch:
    options = ["--policy", "round_robin", "--log-level", "warning", "--prometheus-port", str(machine.free_port())]
    where = ["--host", "127.0.0.1", "--port", str(site.port), "--worker-urls", site.mock_url]
    return Launch([_peer("vllm-router", "vllm-router"), *where, *options])


def _sgl_router(site: Site) -> Launch:
    options = ["--policy", "round_robin", "--log-level", "warn", "--prometheus-port", str(machine.free_port())]
    where = ["--host", "127.0.0.1", "--port", str(site.port), "--worker-urls", site.mock_url]
    return Launch([_peer("sgl-router", "smg"), "launch", *where, *options], {"HF_HUB_OFFLINE": "1"})


def _tensorzero(site: Site) -> Launch:
    configuration = render("tensorzero.toml", site.folder / "tensorzero.toml", mock_port=site.mock_port)
    app = str(machine.HERE / "apps" / "tensorzero_gateway.py")
    return Launch([_peer("tensorzero", "python"), app, str(configuration)], {"RUST_LOG": "error"})


def _portkey_main() -> Path:
    return PEERS / "portkey" / "node_modules" / "@portkey-ai" / "gateway"


def _portkey(site: Site) -> Launch:
    server = _portkey_main() / "build" / "start-server.js"
    if not server.exists():
        raise NotInstalled("portkey is not installed: bash benchmarks/gateway/install.sh")
    loopback = str(machine.HERE / "apps" / "loopback.cjs")
    return Launch(
        ["node", "--require", loopback, str(server), f"--port={site.port}", "--headless"], {"NODE_ENV": "production"}
    )


def _portkey_version() -> str:
    package = _portkey_main() / "package.json"
    return json.loads(package.read_text())["version"] if package.exists() else ""


def _litellm(site: Site) -> Launch:
    configuration = render("litellm.yaml", site.folder / "litellm.yaml", mock_port=site.mock_port, key=KEY)
    where = ["--config", str(configuration), "--host", "127.0.0.1", "--port", str(site.port)]
    env = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return Launch([_peer("litellm", "litellm"), *where, "--num_workers", "1", "--telemetry", "False"], env)


def _uvicorn(app: str) -> Callable[[Site], Launch]:
    def launch(site: Site) -> Launch:
        where = ["--app-dir", str(machine.ROOT), "--host", "127.0.0.1", "--port", str(site.port)]
        options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        return Launch([str(_BIN / "uvicorn"), f"benchmarks.gateway.apps.{app}:app", *where, *options],
                      {"MOCK_URL": site.mock_url})  # fmt: skip

    return launch


def llmgw(site: Site, redis: bool = False, wheel: bool = True) -> Launch:
    if wheel and not _WHEEL.exists():
        raise NotInstalled("the wheel is not built: make wheel")
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    configuration = render("llmgw.yaml", site.folder / "cluster.yaml", mock_port=site.mock_port, key_hash=digest)
    env = {"LLMGW_CONFIG": str(configuration), "LLMGW_WORKERS": str(site.workers), "LLMGW_PORT": str(site.port)}
    env |= {"LLMGW_REDIS_URL": site.redis_url} if redis else {}
    env |= {"PYTHONPATH": str(_WHEEL), "PYTHONSAFEPATH": "1"} if wheel else {}
    return Launch([sys.executable, "-m", "gateway.cli", "gateway"], env)


def _ours() -> str:
    return version("llm-access-gateway")


ALL = (
    System("direct", machine.nginx_version, None),
    System("nginx", machine.nginx_version, _nginx),
    System(OURS, _ours, llmgw, ready="/health/ready"),
    System(f"{OURS}+redis", _ours, lambda site: llmgw(site, redis=True), ready="/health/ready"),
    System(CLONE, _ours, lambda site: llmgw(site, wheel=False), ready="/health/ready"),
    System("vllm-router", _peer_version("vllm-router", "vllm_router"), _vllm_router),
    System("sgl-router", _peer_version("sgl-router", "sglang_router"), _sgl_router),
    System("tensorzero", _peer_version("tensorzero", "tensorzero"), _tensorzero, ready="",
           dialect=OpenAI("tensorzero::model_name::m", "/openai/v1/chat/completions")),
    System("portkey", _portkey_version, _portkey, ready="/",
           headers={"x-portkey-provider": "openai", "x-portkey-custom-host": "{mock}/v1"}),
    System("fastapi-httpx", lambda: f"{version('fastapi')} + {version('httpx')}", _uvicorn("naive")),
    System("langserve", lambda: version("langserve"), _uvicorn("plain_langserve"), dialect=LangServe()),
    System("litellm", _peer_version("litellm", "litellm"), _litellm, ready="/health/liveliness"),
)  # fmt: skip
