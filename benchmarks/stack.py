"""The processes under measurement: the real server and the callback receiver, from outside."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from benchmarks.load import ask_once, request
from benchmarks.running import RunningStack, Usage, usage_of

ROOT: Final = Path(__file__).parent.parent
START_TIMEOUT_S: Final = 20.0
STOP_TIMEOUT_S: Final = 40.0  # longer than the server's own grace
_URL: Final = re.compile(r"https?://[^\s'\"]+")


class StartError(Exception):
    """A process under measurement did not come up; the text says what it wrote."""


@attrs.frozen
class Running:
    """One process under measurement."""

    name: str
    url: str
    pid: int

    def usage(self) -> Usage:
        """What it has used until now, with its children."""
        return usage_of([self.pid])


@attrs.frozen
class Stack:
    server: Running
    receiver: Running

    def callback(self, path: str) -> str:
        return self.receiver.url + path

    async def seen(self, *, counts: bool = False) -> dict[str, Any]:
        """What the receiver counted."""
        target = "/_calls" if counts else "/_calls?counts=0"
        found: dict[str, Any] = (await ask_once(self.receiver.url, request("GET", target))).json()
        return found

    async def answered(self) -> dict[str, float]:
        """When the receiver first answered each task with 2xx, on `time.perf_counter`."""
        answer = await ask_once(self.receiver.url, request("GET", "/_answered"))
        found: dict[str, float] = answer.json()
        return found


@asynccontextmanager
async def open_stack(
    directory: Path, arguments: Sequence[str] = (), *, executors: int = 100
) -> AsyncIterator[Stack]:
    """A fresh server on an empty database in `directory`, and a receiver; stopped at the end."""
    async with (
        _place(directory) as place,
        open_process("receiver", ["-m", "web.receiver", "--port", "0"], place) as receiver,
        _server(place, arguments, executors) as server,
    ):
        yield Stack(server, receiver)


@asynccontextmanager
async def open_ringback(
    directory: Path, arguments: Sequence[str] = (), *, executors: int = 100
) -> AsyncIterator[RunningStack]:
    """A fresh server on an empty database in `directory`, stopped at the end."""
    async with _place(directory) as place, _server(place, arguments, executors) as server:
        yield RunningStack(server.url, (server.pid,))


@asynccontextmanager
async def _place(directory: Path) -> AsyncIterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="ringback-bench-", dir=directory))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _server(
    place: Path, arguments: Sequence[str], executors: int
) -> AbstractAsyncContextManager[Running]:
    database = f"sqlite:///{place}/bench.db"
    serve = ["-m", "web", "serve", "--port", "0", "--database", database]
    return open_process("server", [*serve, "--executors", str(executors), *arguments], place)


@asynccontextmanager
async def open_process(name: str, arguments: Sequence[str], place: Path) -> AsyncIterator[Running]:
    """Start a Python process, wait for the URL it prints, and end it by its pid with SIGTERM.

    Its output goes to files: a pipe that nobody reads would stop it in the middle of a run.
    """
    out, err = place / f"{name}.out", place / f"{name}.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=place,
            env=_environment(),
        )
    url = None
    try:
        url = await _wait_for_url(name, process, out, err)
        yield Running(name, url, process.pid)
    finally:
        with trio.CancelScope(shield=True):  # bounded by STOP_TIMEOUT_S
            await _stop(process)
        if (
            url and process.returncode
        ):  # its directory is about to go, and with it the only explanation
            sys.stderr.write(f"  the {name} left with {process.returncode}: {_tail(err, out)}\n")


async def _wait_for_url(name: str, process: trio.Process, out: Path, err: Path) -> str:
    with trio.move_on_after(START_TIMEOUT_S):
        while process.poll() is None:
            if url := _printed_url(out):
                return url
            await trio.sleep(0.02)
    said = _tail(err, out)
    raise StartError(f"the {name} did not print its URL (exit {process.poll()}):\n{said}")


def _printed_url(out: Path) -> str | None:
    *whole_lines, _ = out.read_text(encoding="utf-8", errors="replace").split("\n")
    found = _URL.search("\n".join(whole_lines))
    return found[0].rstrip("/") if found else None


def _tail(*files: Path) -> str:
    """The end of the first file that says anything."""
    texts = (file.read_text(encoding="utf-8", errors="replace").strip() for file in files)
    return next((text[-2000:] for text in texts if text), "(it wrote nothing)")


async def _stop(process: trio.Process) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    with trio.move_on_after(STOP_TIMEOUT_S) as waiting:
        await process.wait()
    if waiting.cancelled_caught:
        process.kill()
        await process.wait()


def _environment() -> dict[str, str]:
    """Ours, without settings that would change what is measured."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RINGBACK_")}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
