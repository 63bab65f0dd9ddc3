"""What the lock file knows of the database beside it: which one it is, and how far it had come.

SQLite passes over some losses in silence: behind a damaged frame of the -wal file it forgets all
later commits, without that file it shows an older state, and a file that is gone it makes anew. So
the uuid of the database and the newest event that is surely on disk are noted where the database is
not, and compared when it is opened.

The note may lag behind the database, by what was committed within ``INTERVAL_S``; it is never
ahead. It is one line, written in place and without fsync: it costs a commit next to nothing.
"""

from __future__ import annotations

import os
import time
import zlib
from contextlib import suppress

import attrs

INTERVAL_S = 0.1
_LONGEST = 200


@attrs.frozen
class Noted:
    """A database's uuid, and the ``seq`` of its newest event."""

    uuid: str
    seq: int

    def line(self) -> bytes:
        """As it stands in the lock file, with a checksum. All lines are of one length."""
        content = f"{self.uuid} {self.seq:020d}"
        return f"{content} {zlib.crc32(content.encode()):08x}\n".encode()


class Mark:
    """The note in a lock file, which is open and locked. ``descriptor`` is the file's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._kept: Noted | None = None
        self._due = 0.0  # on the monotonic clock

    def __repr__(self) -> str:
        return f"<Mark {self._kept}>"

    def read(self) -> Noted | None:
        """What was noted, if anything was. Raises ``ValueError`` if it cannot be made out."""
        content = os.pread(self._descriptor, _LONGEST, 0)
        if not content.strip(b"\0"):
            return None  # made by an earlier version, or cut off while it was made
        uuid, seq, _ = content.decode("ascii").split()
        found = Noted(uuid, int(seq))
        if found.line() != content:
            raise ValueError("the checksum is wrong")
        return found

    def begin(self, noted: Noted) -> None:
        """From now on this is what is known. Waits for the disk if that is new. Raises ``OSError``."""
        self._kept = noted
        with suppress(ValueError):
            if self.read() == noted:
                return
        written = os.pwrite(self._descriptor, noted.line(), 0)
        os.ftruncate(self._descriptor, written)
        os.fsync(self._descriptor)

    def committed(self, seq: int | None) -> None:
        """Events up to this one are on disk. Costs nothing until ``INTERVAL_S`` has passed."""
        if seq is not None and self._kept is not None and time.monotonic() >= self._due:
            self.note(seq)

    def note(self, seq: int) -> None:
        """Events up to this one are on disk; say so now."""
        if self._kept is None or seq <= self._kept.seq:
            return
        self._kept = attrs.evolve(self._kept, seq=seq)
        self._due = time.monotonic() + INTERVAL_S
        with suppress(OSError):  # a full disk, perhaps: the commit stands, the note lags
            os.pwrite(self._descriptor, self._kept.line(), 0)
