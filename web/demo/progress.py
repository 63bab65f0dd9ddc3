"""What the status stream has told so far, and how that is shown while it goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any, Final

import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table

from engine import Status
from engine.core.lifecycle import ENDED
from web.cli.output import COLOURS

from .plan import KINDS

LIVE_S: Final = 0.1
PLAIN_S: Final = 1.0
_STATUSES: Final = (
    Status.QUEUED,
    Status.PROCESSING,
    Status.RETRYING,
    Status.COMPLETED,
    Status.FAILED,
    Status.CANCELLED,
)


class Progress:
    """Counts events. Every ``seq`` must be the one before it plus one."""

    def __init__(self, total: int, middle: float) -> None:
        """``middle``: the share of tasks that must have ended for ``in_the_middle``."""
        self.total = total
        self.in_the_middle = trio.Event()
        self._middle = middle * total
        self.ended_at: dict[str, float] = {}  # by task id; ``time.perf_counter``
        self.events = self.gaps = 0
        self._seq = 0
        self._now: Counter[tuple[str, Status]] = Counter()  # tasks per kind and status

    def __repr__(self) -> str:
        return f"<Progress {len(self.ended_at)} of {self.total} ended, {self.events} events>"

    def take(self, message: dict[str, Any]) -> bool:
        """Count one message of the stream; True when all tasks have ended."""
        if "taskId" in message:
            self.events += 1
            self.gaps += message["seq"] != self._seq + 1
            self._seq = message["seq"]
            kind, to = message["name"].removeprefix("demo "), Status(message["to"])
            if message["from"] is not None:
                self._now[kind, Status(message["from"])] -= 1
            self._now[kind, to] += 1
            if to in ENDED:
                self.ended_at[message["taskId"]] = perf_counter()
                if len(self.ended_at) >= self._middle:
                    self.in_the_middle.set()
        return len(self.ended_at) >= self.total

    def count(self, status: Status, kind: str | None = None) -> int:
        """Tasks that are in this status now. A dequeued task counts as waiting."""
        alike = (status, Status.PENDING) if status is Status.QUEUED else (status,)
        names = [kind] if kind is not None else [known.name for known in KINDS]
        return sum(self._now[name, one] for name in names for one in alike)


class Display:
    """Shows progress: a table that lives in a terminal, else a line now and then."""

    def __init__(self, console: Console, progress: Progress, in_flight: Callable[[], int]) -> None:
        self._console, self._progress, self._in_flight = console, progress, in_flight
        self._began = perf_counter()
        self._live = (
            Live(console=console, auto_refresh=False, transient=True)
            if console.is_terminal
            else None
        )
        self.interval_s = PLAIN_S if self._live is None else LIVE_S

    def __repr__(self) -> str:
        return f"<Display {'plain' if self._live is None else 'live'}>"

    def running(self) -> AbstractContextManager[object]:
        """The time in which ``show`` may be called; it is counted from here."""
        self._began = perf_counter()
        return self._live if self._live is not None else nullcontext()

    def show(self) -> None:
        """Show how things stand."""
        if self._live is None:
            self._console.print(self._line())
        else:
            self._live.update(self._table(), refresh=True)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False)

    def _line(self) -> str:
        counts = ", ".join(f"{self._progress.count(status)} {status.value}" for status in _STATUSES)
        passed_s = perf_counter() - self._began
        return f"{passed_s:5.1f} s  {counts}; {self._in_flight()} callbacks in flight"

    def _table(self) -> Table:
        ended, total = len(self._progress.ended_at), self._progress.total
        passed_s = perf_counter() - self._began
        table = Table(
            title=f"{ended} of {total} tasks have ended, {self._in_flight()} callbacks in flight",
            caption=f"{passed_s:.1f} s, {self._progress.events} events from the stream",
        )
        table.add_column("kind")
        for status in _STATUSES:
            table.add_column(status.value, justify="right", style=COLOURS[status])
        for kind in KINDS:
            counts = (self._progress.count(status, kind.name) for status in _STATUSES)
            table.add_row(kind.name, *(str(count or "") for count in counts))
        table.add_section()
        table.add_row("all", *(str(self._progress.count(status)) for status in _STATUSES))
        return table
