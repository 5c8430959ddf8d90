"""`llmgw up`: checks what can be checked, starts everything, and tells how to use it."""

import asyncio
import fcntl
import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from gateway.cli import ports
from gateway.cli.stack import Plan, Stack, StartFailed
from gateway.settings import ConfigError, Settings

_TRY_IT = """
Ready in {seconds:.1f} s.

  OpenAI API   {gateway}/v1
  API docs     {gateway}/docs
  chains       {gateway}/chains/chat/playground/
  chat page    {chat}

Try:

  curl {gateway}/v1/models
  curl -N {gateway}/v1/chat/completions -H 'content-type: application/json' -d '{{"model": "{model}", "stream": true, \
"max_tokens": 100, "messages": [{{"role": "user", "content": "Say hello."}}]}}'
  curl {gateway}/chains/chat/invoke -H 'content-type: application/json' \
-d '{{"input": {{"input": "Say hello.", "max_tokens": 100}}}}'

Ctrl-C stops everything; logs are in {logs}.
"""


def plan(config: Path, settings: Settings, chat_port: int | None) -> Plan:
    """Raises ConfigError when a port is taken."""
    ports.check_free(settings.host, settings.port, "--port")
    if chat_port is not None:
        ports.check_free("127.0.0.1", chat_port, "--chat-port")
    return Plan(settings, config, chat_port)


def default_cluster() -> Path:
    """The cluster file that is used when none is given; it belongs to the backend."""
    backend = importlib.util.find_spec("backend")
    if backend is None or backend.origin is None:
        raise ConfigError("the package `backend` is not installed; give a cluster file with --config")
    return Path(backend.origin).with_name("default.yaml")


def up(plan: Plan) -> int:
    """Runs until it is told to stop. Returns the exit status."""
    started = time.monotonic()
    typer.echo(f"Starting {plan.config}")
    stack = Stack(plan, lambda part, seconds: typer.echo(f"  ✓ {part:<28}{seconds:6.1f} s"), typer.echo)
    try:
        with _only_one(plan.settings.home):
            asyncio.run(stack.run(lambda: _show(plan, time.monotonic() - started), lambda: typer.echo("Stopping")))
    except (StartFailed, ConfigError) as error:
        typer.echo(f"llmgw: {error}", err=True)
        return 1
    return 0


def _show(plan: Plan, seconds: float) -> None:
    settings = plan.settings
    typer.echo(
        _TRY_IT.format(
            seconds=seconds,
            gateway=ports.url(settings.host, settings.port),
            chat=f"http://127.0.0.1:{plan.chat_port}" if plan.chat_port is not None else "off",
            model=settings.models[0] if settings.models else "MODEL",
            logs=settings.home / "logs",
        )
    )


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Two stacks must not share one home: they would write the same Redis data."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another llmgw is running from {home}; stop it, or set LLMGW_HOME") from error
        yield
