"""Secrets: what ``tests/integration/test_secrets.py`` plants and looks for, as a line of the bars."""

from __future__ import annotations

import tempfile
import traceback
from pathlib import Path
from typing import Final, NoReturn

import click
import trio

from tests.attack.verdict import RECORD, Came, conclude, progress
from tests.integration.test_secrets import (
    PASSWORDS,
    SECRETS,
    test_no_planted_secret_comes_out_by_any_way as search,
)
from tests.support.secrets import spellings

BAR: Final = "secrets"


async def attack() -> Came:
    """Plant them, use everything, with errors, a crash and a log of everything, and search."""
    with tempfile.TemporaryDirectory(prefix="ringback-secrets-") as directory:
        missed = await trio.to_thread.run_sync(_search, Path(directory))
    fewest = min(len(spellings(secret)) for secret in PASSWORDS.values())
    return Came(
        tried=f"{len(set(SECRETS))} planted secrets, each in {fewest} spellings or more: API keys, signing secrets, "
        "headers, credentials and queries of URLs; in answers, errors, events, streams, metrics, "
        "command line, debug log, through a locked store and a kill -9",
        seen=f"{len(missed)} hits",
        misses=missed,
    )


def _search(place: Path) -> list[str]:
    try:
        search(place)
    except AssertionError:
        progress(traceback.format_exc())
        return ["a secret shows, or the search did not see what it has to"]
    return []


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """Look for planted secrets in everything the server says."""
    conclude(BAR, "secrets", attack, record=record)
