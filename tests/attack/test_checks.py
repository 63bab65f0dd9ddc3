"""The attacks notice what they are there to notice."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from typing import Any

import click
import pytest
import trio
from click.testing import CliRunner

from benchmarks.interrupted import EXIT_INTERRUPTED
from tests.attack.__main__ import ATTACKS, main
from tests.attack.bytes import MANNERS, turns
from tests.attack.bytes_corpus import CORPUS, Sequence, sequences
from tests.attack.storm import Books, check_events, check_tasks
from tests.attack.target import AttackSucceeded, open_target
from tests.attack.verdict import Came, conclude, percentile


class Interrupted(SystemExit):
    """What an attack leaves with that was interrupted."""

    def __init__(self) -> None:
        super().__init__(EXIT_INTERRUPTED)


# --- the real server


@pytest.mark.slow
@pytest.mark.proof
async def test_a_server_that_dies_or_answers_amiss_is_noticed() -> None:
    async with open_target(executors=1) as target:
        base = await target.base()
        with pytest.raises(AttackSucceeded, match="404"):
            await target.ask("GET", "/nothing", wanted=(200,))
        assert target.is_alive()
        os.kill(target.pid, signal.SIGKILL)
        with pytest.raises(AttackSucceeded, match="healthz"):
            await target.health_s()
        with pytest.raises(AttackSucceeded, match=r"ended|signal"):
            await target.settle(base, 5.0)
        with trio.fail_after(10):  # it is killed, and takes a moment to go
            while target.is_alive():  # noqa: ASYNC110 - another process
                await trio.sleep(0.01)


@pytest.mark.slow
@pytest.mark.proof
async def test_connections_that_stay_are_noticed_as_descriptors_and_as_tasks() -> None:
    async with open_target("--keep-alive", "60", executors=1) as target:
        base = await target.base()
        streams = [await trio.open_tcp_stream("127.0.0.1", target.port) for _ in range(10)]
        await target.health_s()  # by now they have been accepted
        now = await target.vitals()
        assert now.descriptors >= base.descriptors + 10
        assert now.tasks >= base.tasks + 10
        with pytest.raises(AttackSucceeded, match="before it were"):
            await target.settle(base, 1.0)
        for stream in streams:
            await stream.aclose()
        await target.settle(base, 10.0)


@pytest.mark.slow
@pytest.mark.proof
async def test_connections_to_callees_are_counted_apart() -> None:
    async with open_target("--grace", "0.2", executors=1) as target:
        base = await target.base()
        task = {"name": "one", "callbackUrl": target.callback("/hang"), "dispatch": "auto"}
        await target.ask("POST", "/api/v1/tasks", task, wanted=(201,))
        with trio.fail_after(5):
            while target.descriptors()[1] == 0:  # noqa: ASYNC110 - another process
                await trio.sleep(0.05)
        assert target.descriptors()[0] <= base.descriptors + 1


# --- the history of tasks


def history(*moves: tuple[str | None, str]) -> list[dict[str, Any]]:
    return [
        {"seq": seq, "taskId": "a", "from": start, "to": end, "attempt": 0}
        for seq, (start, end) in enumerate(moves, start=1)
    ]


GOOD = (
    (None, "Queued"),
    ("Queued", "Pending"),
    ("Pending", "Processing"),
    ("Processing", "Completed"),
)


def test_a_legal_history_is_accepted() -> None:
    assert check_events(history(*GOOD)) == []


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda events: events.pop(1), "gaps"),
        (lambda events: events.pop(), "stays Processing"),
        (lambda events: events[3].update(to="Queued"), "Processing → Queued"),
        (lambda events: events[2].update({"from": "Queued"}), "was Pending, then Queued"),
        (lambda events: events[1].update(attempt=2), "went back"),
        (lambda events: events[0].update(to="Completed"), "None → Completed"),
    ],
)
def test_what_is_wrong_in_a_history_is_found(
    spoil: Callable[[list[dict[str, Any]]], object], found: str
) -> None:
    events = history(*GOOD)
    spoil(events)
    assert any(found in wrong for wrong in check_events(events))


def storm_of(ended: str) -> tuple[list[dict[str, Any]], Books]:
    """One task that was accepted, and how it ended."""
    events = [event | {"name": "storm 1"} for event in history(*GOOD[:3], ("Processing", ended))]
    return events, Books(accepted={"a"})


def test_what_the_clients_and_the_callee_know_may_be_all_right() -> None:
    assert check_tasks(*storm_of("Completed"), {"a": 1}) == []


@pytest.mark.parametrize(
    ("ended", "spoil", "called", "found"),
    [
        ("Completed", lambda events, books: books.accepted.add("b"), {"a": 1}, "b was accepted"),
        ("Completed", lambda events, books: events.append(events[0]), {"a": 1}, "created 2 times"),
        ("Completed", lambda events, books: None, {}, "never called"),
        ("Failed", lambda events, books: None, {"a": 1}, "has Failed"),
        ("Completed", lambda events, books: books.note("cancel", 500, b""), {"a": 1}, "cancel 500"),
    ],
)
def test_what_does_not_fit_what_the_clients_and_the_callee_know_is_found(
    ended: str,
    spoil: Callable[[list[dict[str, Any]], Books], object],
    called: dict[str, int],
    found: str,
) -> None:
    events, books = storm_of(ended)
    spoil(events, books)
    assert any(found in wrong for wrong in check_tasks(events, books, called))


# --- the corpus


def test_the_corpus_is_as_large_as_the_bar_wants() -> None:
    said = sequences()
    assert len({one.bytes for one in said}) >= 200
    assert len({one.name for one in said}) == len(said)
    assert all(parts and all(parts) for parts in CORPUS.values())


def test_all_manners_have_their_turn() -> None:
    said = [Sequence(str(n), (), (b"x",)) for n in range(30)]
    one = list(turns(said, 1))
    assert {manner for _, manner in one} == set(MANNERS)
    assert len(set(turns(said, len(MANNERS)))) == len(said) * len(MANNERS)


# --- the lines


@pytest.mark.parametrize(
    ("came", "code", "begins"),
    [
        (Came(tried="10 times", seen="nothing lost"), 0, "held"),
        (Came(tried="10 times", seen="one lost", misses=["x"]), 1, "MISSED"),
        (Came(tried="10 times", seen="slow", late=["x"]), 1, "MISSED"),
    ],
)
def test_a_missed_bar_is_said_and_ends_the_command_with_1(
    came: Came, code: int, begins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def attack() -> Came:
        return came

    with pytest.raises(SystemExit) as left:
        conclude("a bar", "name", attack, record=False)
    assert left.value.code == code
    assert capsys.readouterr().out.startswith(begins)


def test_an_attack_that_succeeds_is_a_missed_bar(capsys: pytest.CaptureFixture[str]) -> None:
    async def attack() -> Came:
        async with trio.open_nursery():
            raise AttackSucceeded("it fell over\nbecause")

    with pytest.raises(SystemExit) as left:
        conclude("a bar", "name", attack, record=False)
    assert left.value.code == 1
    assert "MISSED: broke off: it fell over\n" in capsys.readouterr().out


def test_an_attack_that_fails_by_itself_is_a_missed_bar(capsys: pytest.CaptureFixture[str]) -> None:
    async def attack() -> Came:
        raise KeyError("no such key")

    with pytest.raises(SystemExit) as left:
        conclude("a bar", "name", attack, record=False)
    assert left.value.code == 1
    said = capsys.readouterr()
    assert "MISSED: broke off: KeyError: 'no such key'\n" in said.out
    assert "Traceback" in said.err


def test_the_command_of_a_line_is_the_one_that_was_run() -> None:
    came = Came(tried="10 times", seen="nothing lost")
    assert (
        came.seen_as("a bar", "herd --tasks 7").command == "python -m tests.attack herd --tasks 7"
    )


@pytest.mark.parametrize(
    ("name", "smaller"),
    [
        ("overload", "--seconds"),
        ("herd", "--tasks"),
        ("idempotent", "--keys"),
        ("poison", "--good"),
        ("poison", "--poison"),
        ("schema", "--cases"),
        ("schema", "--documents"),
    ],
)
def test_a_smaller_form_does_not_become_the_line_of_the_bar(name: str, smaller: str) -> None:
    done = CliRunner().invoke(main, [name, smaller, "7", "--record"])
    assert done.exit_code == 2
    assert f"at least {smaller}" in done.output


def interrupt(kind: type[BaseException]) -> click.Command:
    """An attack that is interrupted at once."""

    def attack(**_: object) -> None:
        raise kind

    return click.Command("attack", callback=attack, params=[])


@pytest.mark.parametrize(
    "attack", [interrupt(KeyboardInterrupt), interrupt(click.Abort), interrupt(Interrupted)]
)
def test_an_interrupted_attack_ends_all_of_them(
    attack: click.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def get_command(_ctx: click.Context, name: str) -> click.Command:
        begun.append(name)
        return attack

    everything = main.commands["all"]
    monkeypatch.setattr(main, "get_command", get_command)
    assert CliRunner().invoke(everything, []).exit_code == 130
    assert begun == [ATTACKS[0]]


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 95) == 95.0
    assert percentile(values, 99) == 99.0
    assert percentile([3.0], 99) == 3.0
    assert math.isnan(percentile([], 99))  # and so below no limit


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_a_command_that_can_record(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert "record" in {option.name for option in command.params}
