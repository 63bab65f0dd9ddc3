"""What the demo creates, and how each task must end. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs

from engine import Status

BATCH_MAX: Final = 1000  # tasks the API takes in one batch
DELAY_S: Final = 2.0
_FAR_S: Final = 3600.0  # longer than any demo: such a task can only be cancelled

Json = dict[str, Any]

# Short and without chance, so that the demo is quick and its figures can be foretold.
_RETRIES: Final[Json] = {
    "maxAttempts": 3,
    "initialIntervalSeconds": 0.2,
    "maxIntervalSeconds": 0.5,
    "multiplier": 2,
    "jitter": False,
}


@attrs.frozen(kw_only=True)
class Kind:
    """A kind of task: where it calls, what else it asks for, and what must come of it."""

    name: str
    path: str
    end: Status
    attempts: int  # callbacks a task of this kind takes when nothing is interrupted
    share: float = 0.0  # of all tasks
    count: int = 0  # or exactly so many
    extra: Json = attrs.field(factory=dict)
    keyed: bool = False  # its tasks share partition keys: each key in order, one at a time
    waits_s: float = 0.0  # no callback before this


# What fails does so with 404, as during a deployment. That is tried again like a 500, but it says that
# the host is alive: after as many 5xx as the demo wants, the receiver's circuit breaker would open and
# hold the good tasks back as well, which is right but not what the demo shows.
GOOD: Final = Kind(name="good", path="/good", end=Status.COMPLETED, attempts=1)  # the rest
CANCELLED: Final = Kind(
    name="cancelled",
    path="/good",
    end=Status.CANCELLED,
    attempts=0,
    count=1,
    extra={"delaySeconds": _FAR_S},
)
BY_HAND: Final = Kind(
    name="by hand",
    path="/good",
    end=Status.COMPLETED,
    attempts=1,
    count=1,
    extra={"dispatch": "manual"},
)
KINDS: Final = (
    GOOD,
    Kind(
        name="flaky",
        path="/flaky?fails=2&status=404",
        end=Status.COMPLETED,
        attempts=3,
        share=0.15,
        extra={"retryPolicy": _RETRIES},
    ),
    Kind(name="slow", path="/slow?ms=", end=Status.COMPLETED, attempts=1, share=0.25),
    Kind(
        name="broken",
        path="/status/404",
        end=Status.FAILED,
        attempts=3,
        share=0.10,
        extra={"retryPolicy": _RETRIES},
    ),
    Kind(name="permanent", path="/permanent", end=Status.FAILED, attempts=1, share=0.05),
    Kind(
        name="scheduled",
        path="/good",
        end=Status.COMPLETED,
        attempts=1,
        share=0.05,
        extra={"delaySeconds": DELAY_S},
        waits_s=DELAY_S,
    ),
    Kind(
        name="in order",
        path="/slow?ms=20",
        end=Status.COMPLETED,
        attempts=1,
        share=0.05,
        keyed=True,
    ),
    CANCELLED,
    BY_HAND,
)


@attrs.frozen
class Planned:
    """A task to create. ``key`` also names it towards the API, so that no repetition creates two."""

    kind: Kind
    number: int
    body: Json

    @property
    def key(self) -> str:
        return f"demo-{self.number}"

    @property
    def partition_key(self) -> str | None:
        """What it must wait its turn for."""
        found: str | None = self.body.get("partitionKey")
        return found


@attrs.frozen
class Plan:
    """How the tasks are created: lines of tasks, each line one by one in its order; and batches."""

    lines: Sequence[Sequence[Planned]]
    batches: Sequence[Sequence[Planned]]

    @property
    def tasks(self) -> list[Planned]:
        return [task for group in (*self.lines, *self.batches) for task in group]


def make_plan(total: int, receiver_url: str, *, lines: int = 8) -> Plan:
    """``total`` tasks of all kinds, well mixed: half one by one over ``lines`` connections, half in
    batches. Tasks that share a key stay together, as their order is the order of creation."""
    counts = {kind.name: kind.count or round(kind.share * total) for kind in KINDS}
    counts[GOOD.name] = total - sum(counts.values())
    tasks = [
        _planned(kind, number, turn, receiver_url)
        for number, (kind, turn) in enumerate(_mixed(counts))
    ]
    keyed = {key: [t for t in tasks if t.partition_key == key] for key in _KEYS}
    single = [t for t in tasks if t.kind in (CANCELLED, BY_HAND)]
    free = [t for t in tasks if not t.kind.keyed and t not in single]
    batched = [*keyed[_KEYS[1]], *free[1::2]]
    one_by_one = [*single, *free[::2]]
    return Plan(
        lines=[keyed[_KEYS[0]], *(one_by_one[start::lines] for start in range(lines))],
        batches=[batched[at : at + BATCH_MAX] for at in range(0, len(batched), BATCH_MAX)],
    )


_KEYS: Final = ("demo-a", "demo-b")


def _mixed(counts: dict[str, int]) -> list[tuple[Kind, int]]:
    """Every kind spread evenly over the whole; with each task the number it has in its kind."""
    places = [
        ((turn + 0.5) / counts[kind.name], place, turn)
        for place, kind in enumerate(KINDS)
        for turn in range(counts[kind.name])
    ]
    return [(KINDS[place], turn) for _, place, turn in sorted(places)]


def _planned(kind: Kind, number: int, turn: int, receiver_url: str) -> Planned:
    path = kind.path
    if path.endswith("ms="):
        path += str(500 + turn * 137 % 500)  # half a second to a second, each another
    body: Json = {
        "name": f"demo {kind.name}",
        "callbackUrl": receiver_url + path,
        "payload": {"kind": kind.name, "number": number},
        "metadata": {"demo": kind.name},
        **kind.extra,
    }
    if kind.keyed:
        body["partitionKey"] = _KEYS[turn % len(_KEYS)]
    return Planned(kind, number, body)
