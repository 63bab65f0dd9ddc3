"""``ringback serve`` and ``ringback migrate``."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import click
import trio

from engine import EngineConfig
from engine.adapters.storage import migrate as migrate_database
from engine.core.redact import masked
from engine.errors import EngineError
from web import interpreter, logs
from web.serve import ServeOptions, run_server
from web.settings import ServerConfig, WebSettings

from .values import how_signed, text_or_file

F = TypeVar("F", bound=Callable[..., Any])

EXIT_FAILED = 1
EXIT_USAGE = 2

_SETTINGS: tuple[type, ...] = (EngineConfig, ServerConfig, WebSettings)


def option_name(field: str) -> str:
    """How a setting is spelled on the command line: ``grace_s`` → ``grace``."""
    return field.removesuffix("_s").replace("_", "-")


def setting_fields() -> dict[str, attrs.Attribute[Any]]:
    """Every setting of engine, server and web part by its option; one name, one meaning.

    In its metadata ``doc`` says what it is. With ``default`` it is given as text, which the record
    converts, and these words tell its default; with ``file`` the text may come from a file.
    """
    return {option_name(f.name): f for kind in _SETTINGS for f in attrs.fields(kind)}


def settings_table() -> str:
    """Every setting as a Markdown table, for the README."""
    lines = ["| option | variable | default | what it is |", "|---|---|---|---|"]
    for name, field in setting_fields().items():
        default = field.metadata.get("default") or f"`{field.default}`"
        lines.append(f"| `--{name}` | `{_variable(name)}` | {default} | {_doc(field)} |")
    return "\n".join(lines)


def _doc(field: attrs.Attribute[Any]) -> str:
    doc: str = field.metadata["doc"]
    if field.metadata.get("file"):
        doc += ", or @FILE"
    return doc + (" (seconds)" if field.name.endswith("_s") else "")


def _variable(option: str) -> str:
    return f"RINGBACK_{option.upper().replace('-', '_')}"


def _setting_options(function: F) -> F:
    for name, field in reversed(setting_fields().items()):
        words = field.metadata.get("default")
        function = click.option(
            f"--{name}",
            field.name,
            type=type(field.default) if words is None else str,
            default=field.default if words is None else "",
            show_default=words or True,
            envvar=_variable(name),
            show_envvar=True,
            callback=_from_file if field.metadata.get("file") else None,
            help=_doc(field),
        )(function)
    return function


def _from_file(_: click.Context, __: click.Parameter, value: str) -> str:
    return text_or_file(value)


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
    help="listen on an address other machines can reach without API keys: anybody may do anything",
)
@click.option(
    "--log-level",
    type=click.Choice(logs.LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    envvar="RINGBACK_LOG_LEVEL",
    show_envvar=True,
    help="how much to tell on standard error",
)
@_setting_options
def serve(database: str, insecure_no_auth: bool, log_level: str, **settings: Any) -> None:
    """Run the server until SIGTERM or Ctrl-C; then drain and stop.

    Exit status: 0 stopped as asked, 1 could not start or failed, 70 did not stop in time.
    """
    if not settings["egress"]:
        settings["egress"] = "internal" if _is_loopback(settings["host"]) else "public"
    try:
        engine, server, web = (_pick(kind, settings) for kind in _SETTINGS)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not (web.api_keys or insecure_no_auth or _is_loopback(server.host)):
        raise click.UsageError(
            f"--host {server.host} can be reached by other machines, and there are no API keys: "
            "make one with `ringback keys new` and give its entry in --api-keys "
            "(RINGBACK_API_KEYS); or add --insecure-no-auth if anybody may do anything"
        )
    logs.configure(log_level, [secret.reveal() for secret in engine.signing_secrets])
    options = ServeOptions(database=database, engine=engine, server=server, web=web)

    def ready(urls: list[str]) -> None:
        interpreter.settle()
        _say_ready(engine, web, urls)

    _run(run_server, options, ready)


@click.command()
@_database_option
@click.option(
    "--accept-loss",
    is_flag=True,
    help="go on with what is there, if `serve` refuses because tasks are missing or because the "
    "database is another one",
)
def migrate(database: str, accept_loss: bool) -> None:
    """Bring a database to the newest schema. ``serve`` does this by itself when it starts.

    Beside the database, in FILE.lock, stands which one it is and how far it had come. If it turns
    out to hold less, because a file was removed, damaged or replaced by an older backup, `serve`
    starts only after --accept-loss. A backup that is taken elsewhere needs no FILE.lock.
    """
    try:
        found = migrate_database(database, accept_loss=accept_loss)
    except (EngineError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    up_to_date = found.current == found.head
    done = "is up to date" if up_to_date else f"migrated from {found.current or 'nothing'}"
    click.echo(f"{masked(database)}: {done}, schema {found.head}")


def _pick(kind: type, settings: dict[str, Any]) -> Any:
    return kind(**{f.name: settings[f.name] for f in attrs.fields(kind)})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _say_ready(engine: EngineConfig, web: WebSettings, urls: list[str]) -> None:
    for url in urls:
        click.echo(f"ringback: listening on {url}")
    known = f"known are {web.api_keys.names()}" if web.api_keys else "none: see ringback keys"
    click.echo(f"ringback: API keys: {known}")
    advice = "" if engine.signing_secrets else ": make a secret with: ringback secrets new"
    click.echo(f"ringback: callbacks are {how_signed(engine.signing_secrets)}{advice}")
    click.echo(f"ringback: callbacks may go to {_reach(engine)} (--egress {engine.egress})")
    sys.stdout.flush()


def _reach(engine: EngineConfig) -> str:
    if engine.egress == "internal":
        return "global, private and loopback addresses"
    allowed = ", ".join(str(network) for network in engine.allow_network)
    return f"global addresses and {allowed}" if allowed else "global addresses only"


def _run(function: Callable[..., Any], *arguments: Any) -> None:
    """Run to the end; turn what people can mend into one line, and leave bugs their traceback."""
    try:
        trio.run(function, *arguments)
    except* (EngineError, OSError, ValueError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        click.echo(f"ringback: {masked(str(error))}", err=True)
        sys.exit(EXIT_FAILED)
