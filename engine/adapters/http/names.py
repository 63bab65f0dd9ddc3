"""Names → addresses. The system's resolver cannot be told to stop, so it is kept on a short lead."""

# ruff: noqa: RUF100, RUF102  # ASYNC910 is flake8-async's
from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Protocol

import attrs
import trio

from engine.core.task import ErrorClass

from .failures import CallFailed, is_shortage

_THREADS = 20  # one that hangs is held until the system gives up
_REMEMBERED_S = 30.0
_REMEMBERED_MAX = 1000  # names


class Names(Protocol):
    """Looks up names."""

    async def addresses(self, host: str) -> Sequence[str]:
        """All addresses of a host, best first, at least one; of an address, itself. Raises
        ``CallFailed``. Has no time limit of its own."""
        ...

    def forget(self, host: str) -> None:
        """Its addresses turned out to be of no use."""
        ...


@attrs.define(eq=False)
class _LookUp:
    """One question to the system, and all who wait for its answer."""

    queueing: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)
    askers: int = 0
    begun: bool = False  # it has a thread
    addresses: Sequence[str] = ()
    error: Exception | None = None


class SystemNames:
    """The system's resolver, in threads of its own: a slow name server cannot starve the store's.

    However many ask for one name, one thread asks the system. Once begun it runs to its end, also
    when everybody has given up, and who asks again meanwhile joins in; what still queues for a
    thread when nobody waits for it any more is dropped, so that dead names do not pile up.
    """

    def __init__(
        self,
        ask: Callable[[str], Sequence[str]] | None = None,
        *,
        threads: int = _THREADS,
        remembered_s: float = _REMEMBERED_S,
        remembered_max: int = _REMEMBERED_MAX,
    ) -> None:
        """``ask`` looks a name up in the thread it is called in; ``None`` asks the system."""
        self._ask = ask or _ask_system
        self._remembered_s = remembered_s
        self._remembered_max = remembered_max
        self._room = trio.Semaphore(threads)
        self._threads = trio.CapacityLimiter(threads)
        self._running: dict[str, _LookUp] = {}
        self._remembered: OrderedDict[str, tuple[float, Sequence[str]]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<SystemNames asking {len(self._running)}, knowing {len(self._remembered)}>"

    async def addresses(self, host: str) -> Sequence[str]:
        """See ``Names``."""
        await trio.lowlevel.checkpoint()
        if known := _literal(host) or self._recall(host):
            return known
        look_up = self._running.get(host) or self._begin(host)
        look_up.askers += 1
        try:
            await look_up.ended.wait()
        finally:
            look_up.askers -= 1
            if not look_up.askers and not look_up.begun:
                self._running.pop(host, None)  # so that nobody joins what will not happen
                look_up.queueing.cancel(reason="nobody waits for this name any more")
        if look_up.error is not None:
            raise _unresolved(look_up.error) from look_up.error
        return look_up.addresses

    def forget(self, host: str) -> None:
        """See ``Names``."""
        self._remembered.pop(host, None)

    def _recall(self, host: str) -> Sequence[str]:
        until, addresses = self._remembered.get(host, (0.0, ()))
        return addresses if trio.current_time() < until else ()

    def _remember(self, host: str, addresses: Sequence[str]) -> None:
        self._remembered.pop(host, None)
        self._remembered[host] = (trio.current_time() + self._remembered_s, addresses)
        if len(self._remembered) > self._remembered_max:
            self._remembered.popitem(last=False)

    def _begin(self, host: str) -> _LookUp:
        look_up = self._running[host] = _LookUp()
        # It belongs to no asker: each may leave, and the thread goes on.
        trio.lowlevel.spawn_system_task(self._run, host, look_up, name=f"look-up of {host}")
        return look_up

    async def _run(self, host: str, look_up: _LookUp) -> None:  # noqa: ASYNC910 - it is a task
        """Nothing may be raised here: an error in a system task ends the process."""
        try:
            with look_up.queueing:
                await self._room.acquire()
                look_up.begun = True
            if not look_up.begun:
                return
            try:
                look_up.addresses = await trio.to_thread.run_sync(
                    self._ask, host, abandon_on_cancel=True, limiter=self._threads
                )
                self._remember(host, look_up.addresses)
            finally:
                self._room.release()
        except Exception as error:  # noqa: BLE001 - it is raised where somebody waits for it
            look_up.error = error
        finally:
            if self._running.get(host) is look_up:
                del self._running[host]
            look_up.ended.set()


def _ask_system(host: str) -> Sequence[str]:
    # As bytes, because Python's own idea of what a name may be differs.
    found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    addresses = dict.fromkeys(str(address[0]) for *_, address in found)
    if not addresses:
        raise socket.gaierror(socket.EAI_NODATA, "No address associated with hostname")
    return tuple(addresses)


def _literal(host: str) -> Sequence[str]:
    try:
        ip_address(host)
    except ValueError:
        return ()
    return (host,)


def _unresolved(error: Exception) -> CallFailed:
    ours = isinstance(error, RuntimeError)  # no room for a thread
    ours = ours or (is_shortage(error) and not isinstance(error, socket.gaierror))
    detail = getattr(error, "strerror", None) or type(error).__name__
    return CallFailed(
        ErrorClass.SHORTAGE if ours else ErrorClass.DNS,
        f"the host name could not be resolved: {detail}",
    )
