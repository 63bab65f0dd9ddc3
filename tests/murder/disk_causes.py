"""Ways to leave a running server without space for its database, and to give it back."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import attrs

from tests.murder.disk_server import FREE, FULL
from tests.support.server import PROGRAM, ServerProcess

SMALL: Final = "32m"  # the -wal file alone may take 16


class Cause(Protocol):
    """Why there is no space."""

    @property
    def name(self) -> str:
        """In a few words."""
        ...

    @property
    def program(self) -> Sequence[str]:
        """The server it can be done to."""
        ...

    def database(self, place: Path) -> Path:
        """Where the server has its database."""
        ...

    def fill(self, server: ServerProcess) -> None:
        """Leave no space."""
        ...

    def free(self, server: ServerProcess) -> None:
        """Give it back."""
        ...


class PageLimit:
    """SQLite may add no page: PRAGMA max_page_count, set inside the server's process."""

    name = "max_page_count"
    program = (sys.executable, "-m", "tests.murder.disk_server")

    def database(self, place: Path) -> Path:
        return place / "ringback.db"

    def fill(self, server: ServerProcess) -> None:
        server.process.send_signal(FULL)

    def free(self, server: ServerProcess) -> None:
        server.process.send_signal(FREE)


class SizeLimit:
    """No file may grow beyond what the -wal file has now: RLIMIT_FSIZE of the running process."""

    name = "RLIMIT_FSIZE"
    program = PROGRAM

    def database(self, place: Path) -> Path:
        return place / "ringback.db"

    def fill(self, server: ServerProcess) -> None:
        size = (server.out.parent / "ringback.db-wal").stat().st_size
        self._limit(server, size)

    def free(self, server: ServerProcess) -> None:
        self._limit(server, resource.RLIM_INFINITY)

    def _limit(self, server: ServerProcess, size: int) -> None:
        pid, kind = server.process.pid, resource.RLIMIT_FSIZE
        _, hard = resource.prlimit(pid, kind)
        resource.prlimit(pid, kind, (size, hard))


@attrs.frozen
class SmallFileSystem:
    """A file system of ``SMALL`` bytes that something else fills."""

    mount: Path
    name = f"tmpfs of {SMALL}"
    program = PROGRAM

    def database(self, place: Path) -> Path:
        return self.mount / "ringback.db"

    def fill(self, server: ServerProcess) -> None:
        with (self.mount / "ballast").open("wb", buffering=0) as ballast:
            size = 1 << 16
            while size:  # until not one byte more goes in
                try:
                    ballast.write(bytes(size))
                except OSError:
                    size //= 2

    def free(self, server: ServerProcess) -> None:
        (self.mount / "ballast").unlink()


@contextmanager
def small_file_system(place: Path) -> Iterator[SmallFileSystem]:
    """Mounted for the length of the block. Raises ``PermissionError`` where that is not allowed."""
    if os.geteuid() != 0:
        raise PermissionError("only root may mount a file system")
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "ringback-test", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip())
    try:
        yield SmallFileSystem(place)
    finally:
        subprocess.run(["umount", str(place)], timeout=20, check=True)
