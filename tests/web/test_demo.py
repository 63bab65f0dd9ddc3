"""``ringback demo`` from end to end: a real server, a real receiver, every task accounted for."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tests.support.cli import NOBODY, start
from web.cli import main

pytestmark = pytest.mark.slow


def test_the_demo_accounts_for_every_task() -> None:
    result = CliRunner(env={"NO_COLOR": None}).invoke(main, ["demo", "--tasks", "60"])
    assert result.exit_code == 0, result.output
    assert "GOOD: all 60 tasks ended as they should" in result.stdout
    assert "0 lost, 0 duplicates" in result.stdout
    assert "\x1b" not in result.stdout


def test_the_demo_loses_nothing_when_the_server_is_killed() -> None:
    with start("demo", "--tasks", "60", "--kill", url=NOBODY) as demo:
        said, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors) == (0, ""), said
    assert "SIGKILL" in said
    assert "0 lost" in said
