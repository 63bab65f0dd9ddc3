"""``ringback secrets``: what callbacks are signed with."""

from __future__ import annotations

from secrets import token_bytes
from typing import Final

import click

from engine import Secret

_KEY_BYTES: Final = 32  # as long as the digest of HMAC-SHA256; more would add nothing


@click.group()
def secrets() -> None:
    """Make secrets to sign callbacks with. There may be several: to change one without a gap, put
    the new one before the old one (separated by a comma), restart, change the receivers, and then
    remove the old one.
    """


@secrets.command()
def new() -> None:
    """Make a secret, for `ringback serve --signing-secrets` and for the receivers."""
    secret = Secret(token_bytes(_KEY_BYTES))
    click.echo(secret.reveal())
    click.echo(f"its key id, as logs show it: {secret.key_id}", err=True)
