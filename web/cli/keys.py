"""``ringback keys``: make API keys, and what a server must know of them."""

from __future__ import annotations

import sys
from secrets import token_bytes, token_hex
from typing import Final

import click

from web.auth import SECRET_BYTES, ApiKey, Scope, key_text, known_as

from .output import json_option, print_json

_KEY_MAX: Final = 200  # characters read of what should be a key
_ROTATION: Final = "Keys are given to `ringback serve --api-keys` by their entries."


@click.group(epilog=_ROTATION)
def keys() -> None:
    """Make API keys. A server knows hashes only, and there may be several keys for a client: to
    change one without a gap, add the new entry, restart, change the client, remove the old entry.
    """


_scope_option = click.option(
    "--scope",
    type=click.Choice([scope.spelled for scope in Scope if scope]),
    required=True,
    help="what it allows: to look, to create and drive tasks too, or everything",
)


@keys.command()
@click.option("--id", "key_id", metavar="NAME", help="who it is for, as logs and errors name it")
@_scope_option
@json_option
def new(*, key_id: str | None, scope: str, as_json: bool) -> None:
    """Make a key. It is shown this once, and kept nowhere."""
    try:
        key = key_text(token_hex(4) if key_id is None else key_id, token_bytes(SECRET_BYTES))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--id") from None
    known = known_as(key, Scope[scope.upper()])
    if as_json:
        print_json({"id": known.id, "scope": scope, "key": key, "entry": known.entry()})
        return
    click.echo(f"key    {key}")
    click.echo(f"entry  {known.entry()}")
    click.echo(
        "The key is for the client (RINGBACK_API_KEY) and is not shown again; "
        "the entry is for the server (RINGBACK_API_KEYS).",
        err=True,
    )


@keys.command("hash")
@_scope_option
def hash_key(*, scope: str) -> None:
    """Print the entry of a key that is read from standard input."""
    click.echo(_known(sys.stdin.read(_KEY_MAX).strip(), scope).entry())


def _known(key: str, scope: str) -> ApiKey:
    try:
        return known_as(key, Scope[scope.upper()])
    except ValueError as error:
        raise click.ClickException(str(error)) from None
