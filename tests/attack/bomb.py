"""Bombs: a hundred answers at once that inflate to a GiB each, a hundred that never end, a hundred
that drip, and a hundred heads without end; a second engine process counts what they cost it.

``tests/integration/test_outcome_limits.py`` is the short form, without the drips.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, NoReturn

import click
import trio

from tests.attack.verdict import RECORD, Came, conclude
from tests.integration.test_outcome_limits import FLOOD, PER_PORT
from tests.support.callees import CHUNKED, endless, open_callee
from tests.support.flood import EXECUTORS, TIMEOUT_S
from tests.support.raw_server import Script
from tests.support.server import ROOT, environment
from web.receiver import open_receiver

BAR: Final = "bombs"
GROWTH_MAX_MIB: Final = 64.0
SPARE_S: Final = 1.0
RUN_S: Final = 300.0
ALL: Final[Mapping[str, Script]] = {
    **FLOOD,
    "drips": endless(CHUNKED, b"1\r\nx\r\n", pause_s=0.2),
}
WANTED: Final = {
    "200": 2 * EXECUTORS,  # good ones before and after
    "200 truncated": 2 * EXECUTORS,  # bombs, never inflated, and bodies without end
    "protocol": EXECUTORS,  # heads
    "timeout": EXECUTORS,  # drips
}


async def attack() -> Came:
    """All of them at once."""
    found = await run()
    misses = {
        f"outcomes {found['outcomes']}": found["outcomes"] != WANTED,
        f"memory +{found['grownMiB']:.0f} MiB": found["grownMiB"] > GROWTH_MAX_MIB,
        f"an attempt of {found['longestS']:.1f} s": found["longestS"] > TIMEOUT_S + SPARE_S,
    }
    return Came(
        tried=f"{EXECUTORS} each of: {', '.join(ALL)}; {EXECUTORS} at once, timeout {TIMEOUT_S:g} s",
        seen=f"memory +{found['grownMiB']:.0f} MiB, the longest attempt {found['longestS']:.1f} s, "
        f"{found['outcomes']['200']} good calls before and after",
        misses=[what for what, is_so in misses.items() if is_so],
    )


async def run() -> dict[str, Any]:
    """What an engine says they took."""
    async with AsyncExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        urls: list[str] = []
        for script in ALL.values():
            for _ in range(EXECUTORS // PER_PORT):
                callee = await stack.enter_async_context(open_callee(script))
                urls += [callee.url()] * PER_PORT
        good = await stack.enter_async_context(open_receiver())
        command = [sys.executable, "-m", "tests.support.flood", f"sqlite:///{place}/flood.db"]
        with trio.fail_after(RUN_S):
            done = await trio.run_process(
                [*command, f"{good.url}/slow?ms=200", *urls],
                cwd=ROOT,
                env=environment(),
                capture_stdout=True,
            )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """Answer with bombs, and without end."""
    conclude(BAR, "bomb", attack, record=record)
