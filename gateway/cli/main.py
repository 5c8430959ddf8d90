"""`llmgw`: the command line of the whole product."""

import hashlib
import secrets
from pathlib import Path
from typing import Annotated

import typer

from gateway.settings import ConfigError, Settings

app = typer.Typer(help="The LLM access gateway.", no_args_is_help=True, add_completion=False)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")

Config = Annotated[Path | None, typer.Option(envvar="LLMGW_CONFIG", help="The cluster file (YAML).", dir_okay=False)]
Host = Annotated[str | None, typer.Option(help="Address to listen on (default 127.0.0.1).")]
Port = Annotated[int | None, typer.Option(help="Port to listen on (default 8080).")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Serve another address than loopback without any key.")]


def _fail(error: Exception) -> typer.Exit:
    typer.echo(f"llmgw: {error}", err=True)
    return typer.Exit(2)


@app.command()
def up(
    config: Config = None,
    host: Host = None,
    port: Port = None,
    chat_port: Annotated[int, typer.Option(help="Port of the chat page.")] = 7860,
    chat: Annotated[bool, typer.Option("--chat/--no-chat", help="With or without the chat page.")] = True,
    insecure: Insecure = False,
) -> None:
    """Start everything on this machine: Redis, Ray with the models, the gateway and the chat page."""
    from gateway.cli import up as command

    try:
        path = config or command.default_cluster()
        settings = Settings.load(config=path, host=host, port=port, insecure=insecure or None)
        plan = command.plan(path, settings, chat_port if chat else None)
    except ConfigError as error:
        raise _fail(error) from error
    raise typer.Exit(command.up(plan))


@app.command()
def gateway(
    config: Config = None,
    host: Host = None,
    port: Port = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes (default 2).")] = None,
    insecure: Insecure = False,
) -> None:
    """Start the gateway alone, in front of a cluster that runs elsewhere."""
    from gateway.cli.workers import serve

    try:
        settings = Settings.load(config=config, host=host, port=port, workers=workers, insecure=insecure or None)
        raise typer.Exit(serve(settings))
    except ConfigError as error:
        raise _fail(error) from error


@app.command()
def doctor(config: Config = None) -> None:
    """Tell what is here, what is missing, and what `llmgw up` would use."""
    from gateway.cli.doctor import examine

    raise typer.Exit(examine(config))


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="How logs and metrics call the key.")],
    tenant: Annotated[str, typer.Option(help="Whose requests it makes.")],
) -> None:
    """Make a key: shows it once, and the entry for `gateway.keys` in the cluster file."""
    key = f"sk-llmgw-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    typer.echo(f"key (shown only now): {key}\n\nadd to the cluster file:\n\ngateway:\n  keys:")
    typer.echo(f'    - {{name: {name}, tenant: {tenant}, hash: "sha256:{digest}"}}')
