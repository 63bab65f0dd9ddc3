"""``ringback check-target``: whether a receiver is fit to be called back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import click
import trio

from engine import EngineConfig, Secret, system_ports
from engine.errors import InvalidTask
from engine.secret import parse_secrets
from web import strict_json

from .client import EXIT_DONE, EXIT_REFUSED
from .output import json_option, open_console
from .submit import DEPTH_MAX
from .values import text_or_file

_NAMES: Final = {"callback_url": "URL", "headers": "--header", "timeout_s": "--timeout"}
_EPILOG: Final = """\b
Exit status:
  0  the receiver behaves; there may be warnings
  1  it does not
  2  wrong usage
"""


def _secrets(_: click.Context, __: click.Parameter, value: str) -> tuple[Secret, ...]:
    try:
        return parse_secrets(text_or_file(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _payload(_: click.Context, __: click.Parameter, value: str) -> Any:
    try:
        return strict_json.loads(text_or_file(value).encode("utf-8", "surrogateescape"), DEPTH_MAX)
    except strict_json.BadJson as error:
        raise click.BadParameter(str(error)) from None


def _headers(_: click.Context, __: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    pairs = [value.partition(":") for value in values]
    if not all(colon for _name, colon, _text in pairs):
        raise click.BadParameter("must be NAME:VALUE")
    return {name.strip(): text.strip() for name, _colon, text in pairs}


@click.command("check-target", epilog=_EPILOG)
@click.argument("url")
@click.option(
    "--secret",
    "secrets",
    default="",
    envvar="RINGBACK_SIGNING_SECRETS",
    show_envvar=True,
    callback=_secrets,
    metavar="whsec_…|@FILE",
    help="what the receiver verifies signatures with; without it those probes are left out",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 60),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="of one call",
)
@click.option(
    "--payload",
    default='{"probe": true}',
    show_default=True,
    callback=_payload,
    metavar="JSON|@FILE",
    help="what the receiver's tasks carry",
)
@click.option(
    "--header", "headers", callback=_headers, multiple=True, metavar="NAME:VALUE", help="repeatable"
)
@json_option
def check_target(
    *,
    url: str,
    secrets: tuple[Secret, ...],
    timeout_s: float,
    payload: Any,
    headers: dict[str, str],
    as_json: bool,
) -> None:
    """Call the receiver at URL well and badly, and say whether it behaves.

    It gets a call as Ringback makes it, the same again, wrong, missing and old signatures, and a
    slow body. These are real calls: what the receiver does for a task, it does for them. It takes
    some seconds, at most about a minute and a half.
    """
    # Imported here: the check prints with this package's means, and other commands need no check.
    from web.check.probes import Target
    from web.check.report import Report, announce
    from web.check.run import check

    target = Target(url=url, secrets=secrets, payload=payload, headers=headers, timeout_s=timeout_s)
    try:
        target.spec().check()
    except InvalidTask as error:
        problems = (
            f"{_NAMES.get(str(path[0]), path[0])} {detail}" for path, detail in error.problems
        )
        raise click.UsageError("; ".join(problems)) from None
    announce(target)
    report = Report(open_console(), as_json=as_json)
    trio.run(check, target, system_ports(EngineConfig(), "memory:"), report.tell)
    report.conclude()
    sys.exit(EXIT_REFUSED if report.failed else EXIT_DONE)
