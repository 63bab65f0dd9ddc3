"""Whether everything ended as it should: compares the plan with what was seen. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import attrs

from engine import Status
from engine.core.lifecycle import ENDED
from web.receiver import Call

from .plan import KINDS, Kind, Planned

_EARLY_S: Final = 0.05  # clocks of two processes


@attrs.frozen(kw_only=True)
class Outcome:
    """One task in the end, from all sides. Times are ``time.perf_counter``."""

    planned: Planned
    task_id: str | None  # None: it was never accepted
    status: Status | None  # None: the API does not know it
    sent_at: float
    create_s: float | None = None
    ended_at: float | None = None
    calls: Sequence[Call] = ()
    attempts: int = 0  # as the API says
    lost_attempts: int = 0

    @property
    def kind(self) -> Kind:
        return self.planned.kind

    @property
    def repeats(self) -> int:
        """Callbacks beyond those its kind takes."""
        return max(0, len(self.calls) - self.kind.attempts)

    @property
    def lost(self) -> bool:
        """Accepted, but it has not ended."""
        return self.task_id is not None and self.status not in ENDED

    def complaints(self) -> Iterable[str]:
        """What is not as it should be."""
        kind = self.kind
        if self.status is not kind.end:
            yield f"is {self.status or 'unknown to the API'}, not {kind.end}"
        if self.repeats > self.lost_attempts:
            yield f"was called {len(self.calls)} times, not {kind.attempts}"
        if len(self.calls) < kind.attempts - self.lost_attempts:
            yield f"was called only {len(self.calls)} times, not {kind.attempts}"
        if self.calls and self.calls[0].started < self.sent_at + kind.waits_s - _EARLY_S:
            yield f"was called before its {kind.waits_s:g} s were over"


@attrs.frozen
class Row:
    """What became of one kind of task."""

    kind: Kind
    planned: int
    ended_so: int
    callbacks: int  # as the receiver counts
    attempts: int  # as the API counts
    create_s: Sequence[float]
    end_to_end_s: Sequence[float]


@attrs.frozen
class Verdict:
    """The account of all tasks. It is good if there are no problems."""

    rows: Sequence[Row]
    problems: Sequence[str]
    lost: int
    repeats: int
    in_order: bool


def judge(outcomes: Sequence[Outcome], *, known_to_api: int, gaps: int) -> Verdict:
    """Compare. ``known_to_api`` counts all tasks there, ``gaps`` the missing events."""
    problems = [
        f"{outcome.kind.name} task {outcome.task_id or outcome.planned.key} {complaint}"
        for outcome in outcomes
        for complaint in outcome.complaints()
    ]
    out_of_order = list(_out_of_order(outcomes))
    problems += out_of_order
    if known_to_api != len(outcomes):
        problems.append(f"the API knows {known_to_api} tasks, not {len(outcomes)}")
    if gaps:
        problems.append(f"the stream left out or repeated events in {gaps} places")
    return Verdict(
        rows=[_row(kind, [o for o in outcomes if o.kind is kind]) for kind in KINDS],
        problems=problems,
        lost=sum(outcome.lost for outcome in outcomes),
        repeats=sum(outcome.repeats for outcome in outcomes),
        in_order=not out_of_order,
    )


def _row(kind: Kind, outcomes: Sequence[Outcome]) -> Row:
    return Row(
        kind=kind,
        planned=len(outcomes),
        ended_so=sum(outcome.status is kind.end for outcome in outcomes),
        callbacks=sum(len(outcome.calls) for outcome in outcomes),
        attempts=sum(outcome.attempts for outcome in outcomes),
        create_s=[o.create_s for o in outcomes if o.create_s is not None],
        end_to_end_s=[o.ended_at - o.sent_at for o in outcomes if o.ended_at is not None],
    )


def _out_of_order(outcomes: Sequence[Outcome]) -> Iterable[str]:
    """For each partition key: the calls must be in order of creation, and one at a time."""
    keyed: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.planned.partition_key is not None:
            keyed[outcome.planned.partition_key].append(outcome)
    for key, group in keyed.items():
        called = [o for o in sorted(group, key=lambda o: o.planned.number) if o.calls]
        for first, second in pairwise(called):
            if second.calls[0].started < (first.calls[-1].ended or float("inf")):
                yield f"task {second.task_id} of key {key} was called before {first.task_id} ended"


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The nearest rank; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]
