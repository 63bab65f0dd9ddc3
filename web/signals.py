"""SIGTERM and SIGINT: the first asks to stop, the second to stop waiting."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from typing import Final

import trio

TOO_LATE_STATUS: Final = 70  # EX_SOFTWARE of sysexits.h


class StopSignals:
    """SIGTERM and SIGINT as events: the ``first`` asks to stop, the ``second`` to stop waiting.

    ``watch`` is a task of the outermost nursery: without it a second signal would kill the process
    halfway. From the first signal on a watchdog counts; it ends with ``watch``.
    """

    def __init__(self, exit_after_s: float) -> None:
        self.first = trio.Event()
        self.second = trio.Event()
        self.exit_after_s = exit_after_s  # more than the grace: it is for what ignores its end

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        # A thread, because a Trio deadline breaks neither a shielded wait nor a blocked loop.
        watchdog = threading.Timer(self.exit_after_s, _exit_at_once)
        watchdog.daemon = True
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            try:
                async for _ in signals:
                    if self.first.is_set():
                        self.second.set()
                    else:
                        self.first.set()
                        watchdog.start()
            finally:
                watchdog.cancel()


def _exit_at_once() -> None:
    try:
        faulthandler.dump_traceback()  # says where it hangs, and takes no lock to do so
    finally:
        os._exit(TOO_LATE_STATUS)
