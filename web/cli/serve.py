"""``ringback serve`` and ``ringback migrate``."""

from __future__ import annotations

import ipaddress
import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import click
import trio

from engine import EngineConfig
from engine.adapters.storage import migrate as migrate_database
from engine.errors import EngineError
from web.serve import ServeOptions, run_server
from web.settings import ServerConfig, WebSettings

F = TypeVar("F", bound=Callable[..., Any])

EXIT_FAILED = 1
EXIT_USAGE = 2

_SETTINGS: tuple[type, ...] = (EngineConfig, ServerConfig, WebSettings)


def option_name(field: str) -> str:
    """How a setting is spelled on the command line: ``grace_s`` → ``grace``."""
    return field.removesuffix("_s").replace("_", "-")


def setting_fields() -> dict[str, attrs.Attribute[Any]]:
    """Every setting of engine, server and web part by its option; one name, one meaning."""
    return {option_name(f.name): f for kind in _SETTINGS for f in attrs.fields(kind)}


def settings_table() -> str:
    """Every setting as a Markdown table, for the README."""
    lines = ["| option | variable | default | what it is |", "|---|---|---|---|"]
    for name, field in setting_fields().items():
        unit = " (seconds)" if field.name.endswith("_s") else ""
        doc = field.metadata["doc"] + unit
        lines.append(f"| `--{name}` | `{_variable(name)}` | `{field.default}` | {doc} |")
    return "\n".join(lines)


def _variable(option: str) -> str:
    return f"RINGBACK_{option.upper().replace('-', '_')}"


def _setting_options(function: F) -> F:
    for name, field in reversed(setting_fields().items()):
        seconds = " (seconds)" if field.name.endswith("_s") else ""
        function = click.option(
            f"--{name}",
            field.name,
            type=type(field.default),
            default=field.default,
            show_default=True,
            envvar=_variable(name),
            show_envvar=True,
            help=field.metadata["doc"] + seconds,
        )(function)
    return function


def _database_option(function: F) -> F:
    return click.option(
        "--database",
        default="sqlite:///ringback.db",
        show_default=True,
        envvar="RINGBACK_DATABASE",
        show_envvar=True,
        help="where tasks are kept: sqlite:///file, sqlite:////absolute/file, or memory:",
    )(function)


@click.command()
@_database_option
@click.option(
    "--insecure-no-auth",
    is_flag=True,
    envvar="RINGBACK_INSECURE_NO_AUTH",
    help="listen on an address other machines can reach, although anybody may then create tasks",
)
@_setting_options
def serve(database: str, insecure_no_auth: bool, **settings: Any) -> None:
    """Run the server until SIGTERM or Ctrl-C; then drain and stop.

    Exit status: 0 stopped as asked, 1 could not start or failed, 70 did not stop in time.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells its whole inner life
    if not insecure_no_auth and not _is_loopback(settings["host"]):
        raise click.UsageError(
            f"--host {settings['host']} can be reached by other machines, and there is no "
            "authentication yet: add --insecure-no-auth if that is what you want"
        )
    try:
        engine, server, web = (_pick(kind, settings) for kind in _SETTINGS)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    options = ServeOptions(database=database, engine=engine, server=server, web=web)
    _run(run_server, options, _say_ready)


@click.command()
@_database_option
def migrate(database: str) -> None:
    """Bring a database to the newest schema. ``serve`` does this by itself when it starts."""
    try:
        found = migrate_database(database)
    except (EngineError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    up_to_date = found.current == found.head
    done = "is up to date" if up_to_date else f"migrated from {found.current or 'nothing'}"
    click.echo(f"{database}: {done}, schema {found.head}")


def _pick(kind: type, settings: dict[str, Any]) -> Any:
    return kind(**{f.name: settings[f.name] for f in attrs.fields(kind)})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _say_ready(urls: list[str]) -> None:
    for url in urls:
        click.echo(f"ringback: listening on {url}")
    sys.stdout.flush()


def _run(function: Callable[..., Any], *arguments: Any) -> None:
    """Run to the end; turn what people can mend into one line, and leave bugs their traceback."""
    try:
        trio.run(function, *arguments)
    except* (EngineError, OSError, ValueError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        click.echo(f"ringback: {error}", err=True)
        sys.exit(EXIT_FAILED)
