"""Which tasks were accepted, and which were called back when."""

from __future__ import annotations

from collections import Counter


class Books:
    """Everything on ``time.perf_counter``. A callback may come before the answer to its create."""

    def __init__(self) -> None:
        self.began: dict[bytes, float] = {}  # accepted tasks -> create sent, or due
        self.arrived: dict[bytes, float] = {}  # called tasks -> first call
        self.answered: dict[bytes, float] = {}  # called tasks -> first call answered
        self.again: Counter[bytes] = Counter()  # called tasks -> calls beyond the first
        self.missing = 0  # accepted, no callback answered yet
        self.moved = 0  # grows with everything that happens

    def __repr__(self) -> str:
        return f"<Books {len(self.began)} accepted, {len(self.arrived)} called>"

    def accept(self, task_id: bytes, began: float) -> None:
        """A create was answered with this task."""
        self.began[task_id] = began
        self.moved += 1
        if task_id not in self.answered:
            self.missing += 1

    def call(self, task_id: bytes, now: float) -> None:
        """A callback came."""
        self.moved += 1
        if task_id in self.arrived:
            self.again[task_id] += 1
        else:
            self.arrived[task_id] = now

    def answer(self, task_id: bytes, now: float) -> None:
        """A callback was answered."""
        self.moved += 1
        if task_id not in self.answered:
            self.answered[task_id] = now
            if task_id in self.began:
                self.missing -= 1

    @property
    def lost(self) -> int:
        """Accepted tasks that were not called."""
        return len(self.began.keys() - self.arrived.keys())

    @property
    def unknown(self) -> int:
        """Called tasks that no create was answered with."""
        return len(self.arrived.keys() - self.began.keys())

    def end_to_end(self) -> list[float]:
        """Seconds from the create to the callback answered."""
        return [at - self.began[i] for i, at in self.answered.items() if i in self.began]

    def times(self) -> list[float]:
        """When the callbacks of accepted tasks were answered, in order."""
        return sorted(at for task_id, at in self.answered.items() if task_id in self.began)
