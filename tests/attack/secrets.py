"""Secrets: what ``tests/integration/test_secrets.py`` plants and looks for, as a line of the bars."""

from __future__ import annotations

import signal
import sys
from typing import Final, NoReturn

import click
import trio

from benchmarks.stack import ROOT
from tests.attack.verdict import RECORD, Came, conclude, progress
from tests.integration.test_secrets import PASSWORDS, SECRETS
from tests.support.secrets import spellings

BAR: Final = "secrets"
STOP_S: Final = 60.0  # for the search to end its servers
SEARCH: Final = "tests/integration/test_secrets.py::test_no_planted_secret_comes_out_by_any_way"


async def attack() -> Came:
    """Plant them, use everything, with errors, a crash and a log of everything, and search. In a
    process of its own, because the command line is used too, and wants the main thread."""
    asked = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", SEARCH]
    done = await trio.run_process(
        asked,
        capture_stdout=True,
        check=False,
        cwd=ROOT,
        deliver_cancel=_interrupt,
        start_new_session=True,  # or Ctrl-C would reach it twice
    )
    held = done.returncode == 0
    if not held:
        progress(done.stdout.decode(errors="replace"))
    fewest = min(len(spellings(secret)) for secret in PASSWORDS.values())
    return Came(
        tried=f"{len(set(SECRETS))} planted secrets, each in {fewest} spellings or more: API keys, signing secrets, "
        "headers, credentials and queries of URLs; in answers, errors, events, streams, metrics, "
        "command line, debug log, through a locked store and a kill -9",
        seen="0 hits" if held else "hits",
        misses=[] if held else ["a secret shows, or the search did not see what it has to"],
    )


async def _interrupt(search: trio.Process) -> None:
    """End the search as Ctrl-C does: by SIGTERM it would leave its servers behind."""
    search.send_signal(signal.SIGINT)
    await trio.sleep(STOP_S)
    search.kill()


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """Look for planted secrets in everything the server says."""
    conclude(BAR, "secrets", attack, record=record)
