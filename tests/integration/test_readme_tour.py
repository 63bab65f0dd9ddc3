"""The README's tour does what it says: its curl commands against a real server and receiver."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import trio

from tests.support.server import environment, running_server
from web.receiver import open_receiver

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def block(language_and_name: str) -> str:
    found = re.search(rf"```{language_and_name}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.slow
async def test_the_engine_runs_in_a_program_of_ones_own_as_shown(tmp_path: Path) -> None:
    async with open_receiver() as receiver:
        program = block("python embed").replace("http://127.0.0.1:9000", receiver.url)
        done = await trio.run_process(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_stdout=True
        )
    path = [line.split("→")[1].strip() for line in done.stdout.decode().splitlines()]
    assert path == ["Queued", "Pending", "Processing", "Completed"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour needs curl")
async def test_the_tour_shows_what_it_promises(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        async with open_receiver() as receiver:
            done = await trio.run_process(
                ["bash", "-euc", block("bash tour")],
                env={**os.environ, "BASE": server.url, "CALLBACK": receiver.url},
                capture_stdout=True,
            )
            assert receiver.total == 2  # one by each dialect; the scheduled one is not due yet
    shown = done.stdout.decode()
    assert shown.startswith("HTTP/1.1 201")
    assert '"pointer": "/callbackUrl"' in shown
    assert '"pointer": "/priority"' in shown
    assert '"status":"Completed"' in shown
    assert "urn:ringback:problem:illegal-transition" in shown
    assert "HTTP/1.1 204" in shown
    assert "internal-error" not in shown
