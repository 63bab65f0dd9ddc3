"""Processes in a group of their own: started with their output in files, ended by the group's id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
import trio

from benchmarks.stack import StartError

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 15.0
USUAL_PLACES: Final = (
    "usr/lib/postgresql/*/bin",  # Debian and Ubuntu keep these off the PATH
    "usr/local/opt/postgresql*/bin",
    "opt/homebrew/opt/postgresql*/bin",
)


class NotInstallable(Exception):
    """A peer cannot run here; the text says what to install."""


def program(name: str, package: str) -> str:
    """The path of a program. Raises NotInstallable, which names the package that has it."""
    found = shutil.which(name)
    if found:
        return found
    for place in USUAL_PLACES:
        for candidate in sorted(Path("/").glob(f"{place}/{name}"), reverse=True):
            return str(candidate)
    raise NotInstallable(f"{name} was not found (Debian, Ubuntu: apt install {package})")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@attrs.frozen
class Started:
    """One process, the first of its group."""

    name: str
    process: trio.Process
    err: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def error(self, text: str) -> StartError:
        said = self.err.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
        return StartError(f"{self.name} {text}:\n{said or '(it wrote nothing)'}")

    async def until(self, ready: Callable[[], Awaitable[bool]]) -> None:
        """Wait until it is ready. Raises StartError if it leaves before, or takes too long."""
        with trio.move_on_after(START_TIMEOUT_S):
            while self.process.poll() is None:
                if await ready():
                    return
                await trio.sleep(0.05)
        raise self.error(f"did not come up (exit {self.process.poll()})")

    async def success(self) -> None:
        """Wait for its end. Raises StartError unless that is a success, and in time."""
        with trio.move_on_after(START_TIMEOUT_S):
            if await self.process.wait() == 0:
                return
        raise self.error(f"failed (exit {self.process.returncode})")


@asynccontextmanager
async def start(
    command: Sequence[str],
    place: Path,
    *,
    name: str,
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> AsyncIterator[Started]:
    """Start a process in ``place``, as ``user`` if given; its whole group ends with the block."""
    err = place / f"{name}.err"
    with err.open("ab") as output:
        process = await trio.lowlevel.open_process(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=place,
            env=_plain_environment() | dict(environment or {}),
            start_new_session=True,
            user=user,
        )
    try:
        yield Started(name, process, err)
    finally:
        with trio.CancelScope(shield=True):  # bounded by STOP_TIMEOUT_S
            await _end(process, stop)


async def _end(process: trio.Process, stop: signal.Signals) -> None:
    if process.poll() is None:
        _signal_group(process.pid, stop)
    with trio.move_on_after(STOP_TIMEOUT_S):
        await process.wait()
    _signal_group(process.pid, signal.SIGKILL)  # what is left of the group has had its time
    await process.wait()


def _signal_group(group: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, what)


def _plain_environment() -> dict[str, str]:
    """Ours, without what would lead a peer to our packages or to another server."""
    private = ("PYTHON", "VIRTUAL_ENV", "PG", "REDIS", "DATABASE", "NODE_", "RINGBACK_", "CELERY")
    return {k: v for k, v in os.environ.items() if not k.startswith(private)}
