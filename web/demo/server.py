"""The real server as a child process on one database file. It can be killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Final

import trio

import web

START_S: Final = 20.0
STOP_S: Final = 45.0  # longer than the grace the server gives to what it has begun
POLL_S: Final = 0.02
_LINE: Final = "ringback: listening on "


class ServerFailed(Exception):
    """The server did not start, or ended by itself; the text says what it wrote."""


class DemoServer:
    """``ringback serve``, as anybody would run it. Stop it with ``stop``, whatever happens."""

    def __init__(self, place: Path) -> None:
        self.database = place / "demo.db"
        self.url = ""
        self._place = place
        self._process: trio.Process | None = None
        self._ending = False

    def __repr__(self) -> str:
        return f"<DemoServer {self.url or 'not started'}>"

    async def start(self) -> float:
        """Start it, on the port it had before if there is one. Returns how long that took."""
        began = perf_counter()
        port = self.url.rpartition(":")[2] or "0"
        with self._file("out").open("wb") as out, self._file("log").open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                [
                    *(sys.executable, "-m", "web", "serve", "--dispatch", "auto"),
                    *("--port", port, "--database", f"sqlite:///{self.database}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,  # a file: a pipe nobody reads would stop it one day
                stderr=log,
                cwd=self._place,
                env=_environment(),
            )
        self._ending = False
        with trio.move_on_after(START_S):
            while True:
                await trio.sleep(POLL_S)
                if self._process.poll() is not None:
                    break
                said, whole_line, _ = self._file("out").read_text().partition("\n")
                if whole_line and said.startswith(_LINE):
                    self.url = said.removeprefix(_LINE).rstrip("/")
                    return perf_counter() - began
        raise ServerFailed(f"the server did not start:\n{self._last_words()}")

    async def kill(self) -> None:
        """SIGKILL: no chance to write or to say anything."""
        self._ending = True
        await trio.lowlevel.checkpoint()
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM, as a service manager does it. Returns the exit status; more than once, if asked."""
        self._ending = True
        await trio.lowlevel.checkpoint()
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_S):
            return await self._process.wait()
        self._process.kill()
        return await self._process.wait()

    async def guard(self) -> None:
        """Runs for ever; raises ``ServerFailed`` if the server ends without being told to."""
        while True:
            await trio.sleep(POLL_S)
            code = self._process.poll() if self._process is not None else None
            if code is not None and not self._ending:
                raise ServerFailed(f"the server ended with status {code}:\n{self._last_words()}")

    def _file(self, kind: str) -> Path:
        return self._place / f"server.{kind}"

    def _last_words(self) -> str:
        return self._file("log").read_text(errors="replace")[-2000:].strip() or "(it said nothing)"


def _environment() -> dict[str, str]:
    """Ours, but without settings that would make this another server than the one shown."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RINGBACK_")}
    root = str(Path(web.__file__).parent.parent)
    return kept | {"PYTHONPATH": os.pathsep.join([root, *filter(None, [kept.get("PYTHONPATH")])])}
