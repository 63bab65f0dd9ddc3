"""The books of a soak: every task from its create to its end, forgotten once all is as it should be.

Three sources have to agree on each task: the answer to its create, the calls that the callee got,
and the stream's event of its end. They come in any order.
"""

from __future__ import annotations

from collections import Counter

import attrs

from tests.soak.mix import Kind


@attrs.define
class Entry:
    """What is known of one task that has not come to its proper end yet."""

    kind: Kind | None = None  # None: its create is not answered
    began: float = 0.0
    attempts: list[int] = attrs.field(factory=list)  # those it was called for
    excused: set[int] = attrs.field(factory=set)  # attempts whose caller left without the answer
    succeeded: bool = False  # a call was answered with 200
    ended: str | None = None


@attrs.define(eq=False)
class Ledger:
    """Holds only the tasks under way, however many there are in all."""

    accepted: int = 0
    closed: int = 0  # tasks of which everything was as it should be, or whose fault is counted
    calls: int = 0
    duplicates: int = 0  # the same attempt called twice, or a call after one that was answered 200
    excused: int = 0  # such calls after the caller had left without its answer: it cannot know
    early: int = 0
    ended_twice: int = 0
    wrong: Counter[str] = attrs.field(factory=Counter)  # ends that the kind of task cannot have
    running: int = 0  # accepted tasks that are due and have not ended
    open: dict[str, Entry] = attrs.field(factory=dict)

    def __repr__(self) -> str:
        return f"<Ledger {self.accepted} accepted, {self.closed} closed, {len(self.open)} open>"

    @property
    def waiting(self) -> int:
        """Accepted tasks that have not come to their end."""
        return self.accepted - self.closed

    def strangers(self) -> list[str]:
        """Tasks that were called or ended though no create was answered with them, or after
        everything about them was settled."""
        return [task_id for task_id, entry in self.open.items() if entry.kind is None]

    def missing(self) -> list[str]:
        """Accepted tasks of which something is still to come."""
        return [task_id for task_id, entry in self.open.items() if entry.kind is not None]

    def accept(self, task_id: str, kind: Kind, began: float) -> None:
        """A create was answered with this task."""
        self.accepted += 1
        entry = self._entry(task_id)
        entry.kind, entry.began = kind, began
        if not kind.delay_s and entry.ended is None:
            self.running += 1
        self._settle(task_id, entry, kind)

    def call(self, task_id: str, kind: Kind, attempt: int, now: float) -> None:
        """A callback came."""
        self.calls += 1
        entry = self._entry(task_id)
        if attempt in entry.attempts or entry.succeeded or kind.cancelled:
            if attempt in entry.excused or attempt - 1 in entry.excused:
                self.excused += 1
            else:
                self.duplicates += 1
        if kind.delay_s and entry.kind is not None and now < entry.began + kind.delay_s:
            self.early += 1
        entry.attempts.append(attempt)

    def answer(self, task_id: str, attempt: int, status: int, *, taken: bool) -> None:
        """A callback was answered, if anybody was there to take the answer."""
        entry = self._entry(task_id)
        if not taken:
            entry.excused.add(attempt)
        elif status == 200:
            entry.succeeded = True

    def end(self, task_id: str, status: str) -> None:
        """The stream tells that a task has ended."""
        entry = self._entry(task_id)
        if entry.ended is not None:
            self.ended_twice += 1
            return
        entry.ended = status
        if entry.kind is not None:
            self.running -= not entry.kind.delay_s
            self._settle(task_id, entry, entry.kind)

    def _entry(self, task_id: str) -> Entry:
        found = self.open.get(task_id)
        if found is None:
            found = self.open[task_id] = Entry()
        return found

    def _settle(self, task_id: str, entry: Entry, kind: Kind) -> None:
        if entry.ended is None:
            return
        if entry.ended != kind.ends:
            self.wrong[f"{kind.name} {entry.ended}"] += 1
        elif entry.ended == "Completed" and not entry.succeeded:
            self.wrong[f"{kind.name} Completed without a call"] += 1
        del self.open[task_id]
        self.closed += 1
