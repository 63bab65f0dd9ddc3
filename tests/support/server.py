"""The real server in a process of its own, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

ROOT = Path(__file__).parent.parent.parent
START_S = 20.0
STOP_S = 45.0
PROGRAM = (sys.executable, "-m", "web")
LINE = "ringback: listening on "


@attrs.define(kw_only=True)
class ServerProcess:
    """A running server. ``exit_code`` is set once it has ended."""

    process: subprocess.Popen[bytes]
    url: str
    out: Path
    err: Path
    exit_code: int | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        """SIGTERM, and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._wait(STOP_S)

    def kill(self) -> int:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        return self._wait(STOP_S)

    def log(self) -> str:
        """All it has written to stderr."""
        return self.err.read_text(errors="replace")

    def _wait(self, seconds: float) -> int:
        try:
            self.exit_code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(
                f"no end within {seconds:g} s of a signal:\n{self.log()}"
            ) from None
        return self.exit_code


@contextmanager
def running_server(
    place: Path,
    *arguments: str,
    port: int = 0,
    env: Mapping[str, str] | None = None,
    program: Sequence[str] = PROGRAM,
) -> Iterator[ServerProcess]:
    """``ringback serve`` on a database in ``place``, stopped in the end by SIGTERM; if it then
    does not exit with 0, that is an error of the test, unless the test has ended it itself.

    Later ``arguments`` win, so ``--database`` and the like can be given. The same ``place`` twice
    in a row is a restart. Blocks while starting and stopping, also in a Trio test. ``program`` is
    what gets ``serve`` and its options: Ringback, or something that ends up being it.
    """
    out, err = place / "server.out", place / "server.err"
    with out.open("wb") as stdout, err.open("ab") as stderr:
        process = subprocess.Popen(
            [
                *(*program, "serve", "--port", str(port)),
                *("--database", f"sqlite:///{place}/ringback.db", *arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=place,
            env=environment(env),
        )
    server = ServerProcess(process=process, url="", out=out, err=err)
    try:
        server.url = _printed_url(server)
        yield server
    except BaseException:
        process.kill()
        process.wait()
        raise
    if server.exit_code is None and (code := server.stop()) != 0:
        raise AssertionError(f"the server ended with {code}:\n{server.log()}")


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without what would change how the program under test behaves."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RINGBACK_") and name not in ("NO_COLOR", "FORCE_COLOR")
    }
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, **(env or {})}


def _printed_url(server: ServerProcess) -> str:
    deadline = time.monotonic() + START_S
    while server.process.poll() is None and time.monotonic() < deadline:
        said, whole_line, _ = server.out.read_text().partition("\n")
        if whole_line and said.startswith(LINE):
            return said.removeprefix(LINE).rstrip("/")
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(0.02)
    raise AssertionError(f"the server did not start ({server.process.poll()}):\n{server.log()}")
