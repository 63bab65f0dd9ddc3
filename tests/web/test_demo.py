"""``ringback demo`` from end to end: a real server, a real receiver, every task accounted for."""

from __future__ import annotations

import pytest

from tests.support.cli import NOBODY, start

pytestmark = pytest.mark.slow

Ended = tuple[int, str, str]
"""The exit status of a demo, and what it printed and complained."""


@pytest.fixture(scope="module")
def demos() -> dict[str, Ended]:
    """Both ways of it, side by side: they mostly wait."""
    ways = {"gentle": [], "--kill": ["--kill"]}
    running = {way: start("demo", "--tasks", "60", *more, url=NOBODY) for way, more in ways.items()}
    ended: dict[str, Ended] = {}
    try:
        for way, demo in running.items():
            said, errors = demo.communicate(timeout=60)
            ended[way] = (demo.returncode, said, errors)
    finally:
        for demo in running.values():
            demo.kill()
            demo.communicate()
    return ended


def test_the_demo_accounts_for_every_task(demos: dict[str, Ended]) -> None:
    code, said, errors = demos["gentle"]
    assert (code, errors) == (0, ""), said
    assert "GOOD: all 60 tasks ended as they should" in said
    assert "0 lost, 0 duplicates" in said
    assert "\x1b" not in said


def test_the_demo_loses_nothing_when_the_server_is_killed(demos: dict[str, Ended]) -> None:
    code, said, errors = demos["--kill"]
    assert (code, errors) == (0, ""), said
    assert "SIGKILL" in said
    assert "0 lost" in said
