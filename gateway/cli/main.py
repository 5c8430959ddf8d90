"""`llmgw`: the command line of the whole product."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.settings import ConfigError, Settings

if TYPE_CHECKING:
    from gateway.keys.stored import KeyStore

app = typer.Typer(help="The LLM access gateway.", no_args_is_help=True, add_completion=False)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")

_DAY = "%Y-%m-%d"
_CENTURY_S = 36500 * 86400
Config = Annotated[Path | None, typer.Option(envvar="LLMGW_CONFIG", help="The cluster file (YAML).", dir_okay=False)]
Host = Annotated[str | None, typer.Option(help="Address to listen on (default 127.0.0.1).")]
Port = Annotated[int | None, typer.Option(help="Port to listen on (default 8080).")]
KeyName = Annotated[str, typer.Argument(metavar="KEY", help="Its id, or its name.")]
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

    arguments = {"config": config, "host": host, "port": port, "workers": workers, "insecure": insecure or None}
    try:
        raise typer.Exit(serve(lambda: Settings.load(**arguments)))
    except ConfigError as error:
        raise _fail(error) from error


@app.command()
def doctor(config: Config = None) -> None:
    """Tell what is here, what is missing, and what `llmgw up` would use."""
    from gateway.cli.doctor import examine

    raise typer.Exit(examine(config))


@app.command()
def usage(
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day; default: to.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day; default: today.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="As CSV.")] = False,
    config: Config = None,
) -> None:
    """What each key has used, by day, model and door."""
    from gateway.cli.usage import report

    try:
        typer.echo(report(config, first and first.date(), last and last.date(), csv=csv), nl=False)
    except ConfigError as error:
        raise _fail(error) from error


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="How logs and metrics call the key.")],
    tenant: Annotated[str, typer.Option(help="Whose requests it makes.")],
    model: Annotated[list[str] | None, typer.Option(help="A model it may call; again for more; all without.")] = None,
    chain: Annotated[list[str] | None, typer.Option(help="A chain it may call, likewise.")] = None,
    skill: Annotated[list[str] | None, typer.Option(help="A skill's plugin it may call, likewise.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Completions it may ask for.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Prompts and answers together.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Answers at the same time.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(help="Of a day in UTC.")] = None,
    tokens_per_month: Annotated[int | None, typer.Option(help="Of a month in UTC.")] = None,
    cache: Annotated[str | None, typer.Option(help="reproducible (the default), always or never.")] = None,
    policy: Annotated[list[str] | None, typer.Option(help="A routing policy its requests may name, likewise.")] = None,
    priority: Annotated[str | None, typer.Option(help="The highest: interactive (the default) or batch.")] = None,
    days: Annotated[float | None, typer.Option(help="How long it is valid; at most 36500.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="It may see what all have used.")] = False,
    file: Annotated[bool, typer.Option("--file", help="Print an entry for the cluster file instead.")] = False,
    config: Config = None,
) -> None:
    """Make a key, and show it once."""
    from gateway.cli import keys as command

    lists = {"models": model, "chains": chain, "skills": skill, "policies": policy}
    minutes = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
    rest = {"concurrency": concurrency, "tokens_per_day": tokens_per_day, "tokens_per_month": tokens_per_month}
    rights = {field: names or None for field, names in lists.items()} | minutes | rest
    try:
        others = {"cache": cache, "priority": priority, "expires_at": command.expiry(days), "admin": admin or None}
        asked = {field: value for field, value in (rights | others).items() if value is not None}
        fields = {"name": name, "tenant": tenant, **asked}
        if file:
            typer.echo(command.file_entry(fields))
            return
    except ConfigError as error:
        raise _fail(error) from error
    with _store(config) as store:
        typer.echo(command.show_new(*store.create(**fields)))


@keys.command("list")
def list_keys(config: Config = None) -> None:
    """List the stored keys."""
    from gateway.cli import keys as command

    with _store(config) as store:
        stored = store.read()
    typer.echo(command.listing(stored.keys), nl=False)
    for line in command.complaints(stored):
        typer.echo(line, err=True)


@keys.command("show")
def show_key(key: KeyName, config: Config = None) -> None:
    """Show what a key may do."""
    from gateway.cli import keys as command

    with _store(config) as store:
        typer.echo(command.show(store.show(key)))


@keys.command("revoke")
def revoke_key(key: KeyName, config: Config = None) -> None:
    """End a key, on every gateway within a second."""
    with _store(config) as store:
        typer.echo(f"{store.revoke(key)} is revoked")


@keys.command("rotate")
def rotate_key(
    key: KeyName,
    overlap: Annotated[
        int, typer.Option(min=0, max=_CENTURY_S, help="Seconds that the old one counts beside the new one.")
    ] = 0,
    config: Config = None,
) -> None:
    """Give a key's record a new key, and show it once."""
    from gateway.cli import keys as command

    with _store(config) as store:
        typer.echo(command.show_new(*store.rotate(key, overlap)))


@contextmanager
def _store(config: Path | None) -> Iterator["KeyStore"]:
    from gateway.cli.keys import store

    try:
        with store(config) as opened:
            yield opened
    except ConfigError as error:
        raise _fail(error) from error
