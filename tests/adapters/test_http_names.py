"""Names: one thread for each, however many ask; and nobody waits for ever."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from engine.adapters.http.failures import CallFailed
from engine.adapters.http.names import SystemNames
from engine.core.task import ErrorClass
from tests.support.callbacks import failed, open_caller, open_net, request
from tests.support.raw_server import always, answer, raw_server


class SlowSystem:
    """A resolver that answers when it is let go, and records who was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.go = threading.Event()
        self.error: Exception | None = None

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        self.go.wait(20)
        self.ended.append(host)
        if self.error is not None:
            raise self.error
        return ("192.0.2.1", "2001:db8::1")

    async def until_asked(self, host: str) -> None:
        with trio.fail_after(5):
            while host not in self.asked:  # noqa: ASYNC110 - by another thread
                await trio.sleep(0.001)


@pytest.fixture
async def system() -> AsyncIterator[SlowSystem]:
    system = SlowSystem()
    yield system
    system.go.set()


@asynccontextmanager
async def asking(names: SystemNames, host: str) -> AsyncIterator[list[Sequence[str]]]:
    """Asks during the block, waits for the answer at its end."""
    found: list[Sequence[str]] = []

    async def ask() -> None:
        found.append(await names.addresses(host))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        yield found


async def give_up(names: SystemNames, host: str) -> None:
    """Ask, and leave as soon as the question is put."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(names.addresses, host)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason="gave up")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "2001:db8::7"])
async def test_an_address_needs_no_thread(system: SlowSystem, address: str) -> None:
    assert await SystemNames(system).addresses(address) == (address,)
    assert system.asked == []


async def test_a_hundred_askers_for_one_name_use_one_thread(system: SlowSystem) -> None:
    names = SystemNames(system)
    found: list[Sequence[str]] = []

    async def ask() -> None:
        found.append(await names.addresses("a.test"))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        system.go.set()
    assert found == [("192.0.2.1", "2001:db8::1")] * 100
    assert system.asked == ["a.test"]


async def test_a_look_up_everybody_gave_up_goes_on_and_who_asks_later_joins_it(
    system: SlowSystem,
) -> None:
    names = SystemNames(system)
    for _ in range(3):
        await give_up(names, "a.test")
        await system.until_asked("a.test")
    async with asking(names, "a.test") as found:
        system.go.set()
    assert found == [("192.0.2.1", "2001:db8::1")]
    assert system.asked == ["a.test"]


async def test_a_look_up_that_queues_and_nobody_waits_for_is_dropped(system: SlowSystem) -> None:
    names = SystemNames(system, threads=1)
    await give_up(names, "first.test")
    await system.until_asked("first.test")
    for number in range(50):
        await give_up(names, f"dead-{number}.test")
    async with asking(names, "last.test"):
        system.go.set()
    assert system.asked == ["first.test", "last.test"]


async def test_who_asks_again_as_a_look_up_is_dropped_gets_another(system: SlowSystem) -> None:
    names = SystemNames(system, threads=1)
    await give_up(names, "first.test")
    await system.until_asked("first.test")
    hosts = [f"{number}.test" for number in range(30)]  # for each, chance says who runs first
    leaving = {host: trio.CancelScope() for host in hosts}
    found: list[Sequence[str]] = []

    async def ask_twice(host: str) -> None:
        with leaving[host]:
            await names.addresses(host)
        found.append(await names.addresses(host))

    async with trio.open_nursery() as nursery:
        for host in hosts:
            nursery.start_soon(ask_twice, host)
        await trio.testing.wait_all_tasks_blocked()
        for scope in leaving.values():
            scope.cancel(reason="gave up")
        await trio.testing.wait_all_tasks_blocked()
        system.go.set()
    assert found == [("192.0.2.1", "2001:db8::1")] * 30
    assert sorted(system.asked) == sorted(["first.test", *hosts])


@pytest.mark.parametrize(
    ("error", "part", "outcome"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "not known",
            ErrorClass.DNS,
        ),
        (OSError(24, "Too many open files"), "Too many open files", ErrorClass.SHORTAGE),
        (RuntimeError("can't start new thread"), "RuntimeError", ErrorClass.SHORTAGE),
        (UnicodeError("label too long"), "UnicodeError", ErrorClass.DNS),
    ],
)
async def test_what_the_system_says_wrong_is_about_the_name_or_our_own_shortage(
    system: SlowSystem, error: Exception, part: str, outcome: ErrorClass
) -> None:
    system.error = error
    system.go.set()
    names = SystemNames(system)
    for _ in range(2):  # and the error is not remembered
        with pytest.raises(CallFailed, match=part) as caught:
            await names.addresses("a.test")
        assert caught.value.error_class is outcome
    assert len(system.asked) == 2


async def test_addresses_are_remembered_for_a_while(
    system: SlowSystem, mock_clock: trio.testing.MockClock
) -> None:
    system.go.set()
    names = SystemNames(system)
    for pause_s, asked in ((0, 1), (29, 1), (2, 2), (29, 2)):
        mock_clock.jump(pause_s)
        await names.addresses("a.test")
        assert len(system.asked) == asked


async def test_what_is_forgotten_is_asked_for_again(system: SlowSystem) -> None:
    system.go.set()
    names = SystemNames(system)
    names.forget("a.test")  # which it does not know
    await names.addresses("a.test")
    names.forget("a.test")
    await names.addresses("a.test")
    assert system.asked == ["a.test"] * 2


async def test_only_so_many_names_are_remembered(system: SlowSystem) -> None:
    system.go.set()
    names = SystemNames(system, remembered_max=2)
    for host in ("a.test", "b.test", "c.test", "b.test", "c.test", "a.test"):
        await names.addresses(host)
    assert system.asked == ["a.test", "b.test", "c.test", "a.test"]
    assert repr(names) == "<SystemNames asking 0, knowing 2>"


def test_a_look_up_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    system = SlowSystem()

    async def main() -> None:
        await give_up(SystemNames(system), "a.test")
        await system.until_asked("a.test")

    trio.run(main)
    assert system.ended == []
    system.go.set()


# -- through a call ----------------------------------------------------------------------------


async def test_a_name_is_resolved() -> None:
    async with raw_server(always(answer())) as server, open_caller() as caller:
        found = await caller.call(request(f"http://localhost:{server.port}/"))
    assert found.status_code == 200


async def test_a_name_that_takes_too_long(system: SlowSystem) -> None:
    net = open_net(connect_timeout_s=0.05, resolver=SystemNames(system))
    async with net.open_caller() as caller:
        found = await caller.call(request("http://a.test/"))
    assert failed(found, ErrorClass.DNS, "took too long")


async def test_a_name_nobody_has(system: SlowSystem) -> None:
    system.error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    system.go.set()
    net = open_net(resolver=SystemNames(system))
    async with net.open_caller() as caller:
        found = await caller.call(request("http://a.test/"))
    assert failed(found, ErrorClass.DNS, "could not be resolved: Name or service not known")
