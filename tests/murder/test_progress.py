"""A long run that is told to stop takes with it what it has made."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from benchmarks.interrupted import EXIT_INTERRUPTED
from tests.murder.progress import asked, block_in_new_place


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def _is_told_to_stop() -> None:
    signal.raise_signal(signal.SIGTERM)
    await trio.sleep(60)


@pytest.mark.parametrize("runs_trio", [False, True])
def test_sigterm_ends_what_blocks_and_its_place_is_gone(runs_trio):
    seen: list[Path] = []

    def work(place: Path) -> None:
        seen.append(place)
        if runs_trio:
            trio.run(_is_told_to_stop)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as exited:
        block_in_new_place("test", work)
    assert exited.value.code == EXIT_INTERRUPTED
    assert not seen[0].exists()


def test_what_it_came_to_is_handed_on():
    assert block_in_new_place("test", lambda place: place.is_dir())


def test_a_seed_is_part_of_the_command_only_if_it_was_given():
    assert asked("kill", 200, None) == "python -m tests.murder kill --rounds 200"
    assert asked("kill", 200, 7) == "python -m tests.murder kill --rounds 200 --seed 7"
