"""The unchanged server with a profiler in it: ``python -m benchmarks.profiled_serve DIRECTORY serve …``.

The main thread is sampled: for every few milliseconds of its CPU its stack is written down. The
store's threads cannot be met like that, as they would be seen only where they let go of the
interpreter's lock; their CPU is measured where one layer calls another. Linux only.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import mmap
import os
import signal
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, ParamSpec, TypeVar

import attrs

from benchmarks.stacks import LOOP, frame_name

P = ParamSpec("P")
R = TypeVar("R")

INTERVAL_NS: Final = 4_000_000  # of CPU; the kernel looks no more often than at its own tick
SAMPLES: Final = "samples.folded"
TOTALS: Final = "totals.bin"
_TOTALS: Final = struct.Struct("=4d2Q")
_OTHERWISE, _CORE, _STORE, _SQLITE, _GARBAGE = range(5)
_CLOCK_THREAD_CPUTIME_ID, _SIGEV_THREAD_ID = 3, 4


@attrs.frozen
class Totals:
    """CPU seconds so far: by layer on the store's threads, and of garbage collection on all."""

    core_s: float
    sqlite_s: float
    garbage_s: float
    collector_s: float
    collections: int
    transactions: int

    def __add__(self, other: Totals) -> Totals:
        pairs = zip(attrs.astuple(self), attrs.astuple(other), strict=True)
        return Totals(*(mine + theirs for mine, theirs in pairs))

    def __sub__(self, other: Totals) -> Totals:
        pairs = zip(attrs.astuple(self), attrs.astuple(other), strict=True)
        return Totals(*(mine - theirs for mine, theirs in pairs))


def read_totals(directory: Path) -> Totals:
    """What the server of this directory has come to."""
    return Totals(*_TOTALS.unpack((directory / TOTALS).read_bytes()))


class Clocks:
    """The CPU of each layer, exclusive of those it calls. Every thread has its own sums."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        path.write_bytes(bytes(_TOTALS.size))
        with path.open("r+b") as file:
            self._shown = mmap.mmap(file.fileno(), _TOTALS.size)
        self._here = threading.local()
        self._sums: list[list[float]] = []  # of all threads but the main one
        self._main_sums = [0.0] * 5
        self._collections = self._transactions = 0

    def enter(self, layer: int) -> int:
        """From now on this thread is in `layer`; returns the one it was in."""
        here, now = self._here, self._clock()
        if not hasattr(here, "sums"):
            is_main = threading.current_thread() is threading.main_thread()
            here.sums = self._main_sums if is_main else [0.0] * 5
            here.layer, here.since = _OTHERWISE, now
            if not is_main:
                self._sums.append(here.sums)
        left: int = here.layer
        here.sums[left] += now - here.since
        here.layer, here.since = layer, now
        return left

    def timed(self, layer: int, function: Callable[P, R]) -> Callable[P, R]:
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            left = self.enter(layer)
            try:
                return function(*args, **kwargs)
            finally:
                self.enter(left)

        return call

    def transaction(self, work: Callable[[Any], R]) -> Callable[[Any], R]:
        """`work` is the core's, what it does with the records the store's."""

        def call(records: Any) -> R:
            try:
                return self.timed(_CORE, work)(_TimedRecords(records, self))
            finally:
                self._transactions += 1
                self.show()

        return call

    def collector(self, phase: str, _info: dict[str, int]) -> None:
        """As ``gc.callbacks`` wants it."""
        if phase == "start":
            self._here.interrupted = self.enter(_GARBAGE)
            return
        self.enter(self._here.interrupted)
        self._collections += 1

    def show(self) -> None:
        sums = [sum(column) for column in zip(*self._sums, strict=True)] or [0.0] * 5
        collector_s = sums[_GARBAGE] + self._main_sums[_GARBAGE]
        seconds = (sums[_CORE], sums[_SQLITE], sums[_GARBAGE], collector_s)
        _TOTALS.pack_into(self._shown, 0, *seconds, self._collections, self._transactions)


class _TimedRecords:
    """The store's records, as the core gets them."""

    def __init__(self, records: Any, clocks: Clocks) -> None:
        self._records = records
        self._clocks = clocks

    def __getattr__(self, name: str) -> Any:
        found = self._clocks.timed(_STORE, getattr(self._records, name))
        self.__dict__[name] = found
        return found


def time_the_store(clocks: Clocks) -> None:
    """At its port, where the core's work comes in, and at the driver, where SQLite begins."""
    from engine.adapters.storage.sqlite import SqliteStore

    transact = SqliteStore.transact

    async def timed(self: SqliteStore, work: Callable[[Any], R]) -> R:
        return await transact(self, clocks.transaction(work))

    SqliteStore.transact = timed  # type: ignore[method-assign]

    def in_driver(kind: type, name: str) -> Any:
        return clocks.timed(_SQLITE, getattr(kind, name))

    calls = ("execute", "executemany", "fetchone", "fetchmany", "fetchall", "__next__")
    timed_cursor = type(
        "Cursor", (sqlite3.Cursor,), {c: in_driver(sqlite3.Cursor, c) for c in calls}
    )

    class Connection(sqlite3.Connection):
        commit = in_driver(sqlite3.Connection, "commit")
        rollback = in_driver(sqlite3.Connection, "rollback")

        def cursor(self, factory: Any = timed_cursor) -> Any:
            return super().cursor(factory)

    connect: Any = sqlite3.connect

    def connect_timed(*args: Any, **kwargs: Any) -> Any:
        return connect(*args, **{"factory": Connection} | kwargs)

    sqlite3.connect = sqlite3.dbapi2.connect = connect_timed


class Sampler:
    """Writes a line for each sample of the main thread: its frames, outermost first, and the
    microseconds of its CPU since the last one. Signals that come while long C code runs are one."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC)
        self._names: dict[CodeType, str] = {}
        self._since = time.thread_time()

    def __call__(self, _signal: int, frame: FrameType | None) -> None:
        """As ``signal.signal`` wants it."""
        now = time.thread_time()
        used_us, self._since = round((now - self._since) * 1e6), now
        names, frames = self._names, []
        while frame is not None:
            code = frame.f_code
            name = names.get(code)
            if name is None:
                name = names[code] = frame_name(code.co_filename, code.co_qualname)
            frames.append(name)
            if name == LOOP:  # further out there is nothing but how the program was begun
                break
            frame = frame.f_back
        os.write(self._file, f"{';'.join(reversed(frames))} {used_us}\n".encode())

    def start(self) -> None:
        """Sample the calling thread, which must be the main one, until the process ends."""
        signal.signal(signal.SIGPROF, self)
        stop = start_thread_timer(signal.SIGPROF, INTERVAL_NS)
        atexit.register(stop)


class _SignalEvent(ctypes.Structure):
    _fields_ = [  # type: ignore[mutable-override]
        ("value", ctypes.c_void_p), ("signal", ctypes.c_int), ("notify", ctypes.c_int),
        ("thread", ctypes.c_int), ("rest", ctypes.c_byte * 44),]  # fmt: skip


def start_thread_timer(number: int, interval_ns: int) -> Callable[[], None]:
    """Signal the calling thread for every `interval_ns` of its own CPU; returns what ends that.

    ``signal.setitimer`` knows the whole process only, whose other threads would count too.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    event = _SignalEvent(signal=number, notify=_SIGEV_THREAD_ID, thread=threading.get_native_id())
    timer = ctypes.c_void_p()
    if libc.timer_create(_CLOCK_THREAD_CPUTIME_ID, ctypes.byref(event), ctypes.byref(timer)):
        raise OSError(ctypes.get_errno(), "no timer for a thread's CPU")

    def arm(every_ns: int) -> None:
        interval = (ctypes.c_long * 4)(0, every_ns, 0, every_ns)  # again and first, s and ns
        libc.timer_settime(timer, 0, interval, None)

    arm(interval_ns)
    return lambda: arm(0)


def main() -> None:
    """Measure, and be the server."""
    from web.cli import main as ringback

    directory = Path(sys.argv[1])
    clocks = Clocks(directory / TOTALS)
    time_the_store(clocks)
    gc.callbacks.append(clocks.collector)
    Sampler(directory / SAMPLES).start()
    ringback(sys.argv[2:], prog_name="ringback")


if __name__ == "__main__":
    main()
