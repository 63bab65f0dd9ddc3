"""Was the promise kept? Compares what clients were told with what there is in the end.

In the manner of Jepsen's total-queue checker: what was acknowledged and is not there is *lost*,
what is there and was never sent is *unexpected*; an answer that never came is *unknown* and excuses
either. Beyond that every event, attempt and callback of every task is looked at. Pure: it is
tested by histories in which one thing is wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise, takewhile
from typing import Final

import attrs

from engine.core.lifecycle import ENDED, TRANSITIONS
from engine.core.task import ErrorClass, Status
from tests.murder.history import AttemptSeen, CallSeen, EventSeen, Found, History, TaskSeen

ANSWERED: Final = frozenset({None, ErrorClass.HTTP_STATUS})
WORDS: Final = {  # for the breaches that are always told of, also if there are none
    "lost": "lost",
    "stuck": "stuck",
    "unexpected": "unexpected",
    "stale": "stale",
    "repeated": "repeated without a cut",
}
SHOWN: Final = 5  # breaches of a rule that a report quotes


@attrs.frozen
class Rules:
    """What is allowed in this run."""

    excuses: frozenset[ErrorClass]  # attempts that may be repeated although nobody refused them
    recoveries_max: int = 4
    repeats_max: int = 100  # per cut: one for each executor
    in_order: bool = True  # the callee was always there to see calls in their order
    on_its_way_s: float = 1.0  # a call may wait so long before the callee reads it
    commit_s: float = 1.0  # so long before a cut an answer may have come and not be durable yet


@attrs.frozen
class Breach:
    """One way in which the promise was broken."""

    rule: str
    detail: str


@attrs.frozen
class Report:
    """What the checker found."""

    tasks: int
    breaches: list[Breach]
    repeats: list[int]  # callbacks made again, for each cut
    commit_s: float  # so long before a cut an answered one counts as in flight
    recovered: int  # tasks of which an attempt was lost, and which ended all the same
    parked: int  # ... as Failed, because they lost too many
    uncalled: int  # ... although their callback was made in none of these attempts
    ends: Counter[Status]

    def sentence(self) -> str:
        """What was lost and found, for one line."""
        counts = Counter(breach.rule for breach in self.breaches)
        main = [f"{counts.pop(rule, 0)} {words}" for rule, words in WORDS.items()]
        found = ", ".join([*main, *(f"{count} {rule}" for rule, count in counts.items())])
        return (
            f"{found}; {sum(self.repeats):,} callbacks repeated that were in flight at a cut or"
            f" answered up to {self.commit_s:g} s before it"
            f" (at most {max(self.repeats, default=0)} of one);"
            f" {self.recovered:,} tasks recovered, {self.parked} parked"
            f" ({self.uncalled} of them uncalled)"
        )

    def quote(self) -> str:
        """The first breaches of each rule, a line each."""
        shown: Counter[str] = Counter()
        lines = []
        for breach in self.breaches:
            shown[breach.rule] += 1
            if shown[breach.rule] <= SHOWN:
                lines.append(f"{breach.rule}: {breach.detail}")
        return "\n".join(lines)


def check(history: History, found: Found, rules: Rules) -> Report:
    """Look at everything."""
    books = _Books(history, found, rules)
    breaches = [
        *books.creates(),
        *books.stream(),
        *books.ends(),
        *books.paths(),
        *books.logs(),
        *books.callbacks(),
        *books.clients(),
        *books.cut_off(),
        *books.keys(),
    ]
    repeats = books.repeats(breaches)
    lost = [
        task
        for task in found.tasks
        if any(one.error_class is ErrorClass.LOST for one in found.attempts.get(task.id, ()))
    ]
    parked = [t for t in lost if t.status is Status.FAILED and books.is_parked(t.id)]
    return Report(
        tasks=len(found.tasks),
        breaches=breaches,
        repeats=repeats,
        commit_s=rules.commit_s,
        recovered=sum(task.status in ENDED for task in lost),
        parked=len(parked),
        uncalled=sum(not books.was_called(task.id) for task in parked),
        ends=Counter(task.status for task in found.tasks),
    )


class _Books:
    """A run's records, by task."""

    def __init__(self, history: History, found: Found, rules: Rules) -> None:
        self._history, self._found, self._rules = history, found, rules
        self._tasks: Mapping[str, TaskSeen] = {task.id: task for task in found.tasks}
        self._events: defaultdict[str, list[EventSeen]] = defaultdict(list)
        for event in found.events:
            self._events[event.task_id].append(event)
        self._calls: defaultdict[str, list[CallSeen]] = defaultdict(list)
        for call in sorted(found.calls, key=lambda call: call.began):
            self._calls[call.task_id].append(call)

    def _log(self, task_id: str) -> list[AttemptSeen]:
        return self._found.attempts.get(task_id, [])

    def is_parked(self, task_id: str) -> bool:
        """Whether as many attempts were lost as are allowed, since one was counted."""
        last = takewhile(lambda one: not one.counted, reversed(self._log(task_id)))
        lost = sum(one.error_class is ErrorClass.LOST for one in last)
        return lost >= self._rules.recoveries_max

    def was_called(self, task_id: str) -> bool:
        """Whether any of its last attempts, as many as may be lost, was more than a claim."""
        last = {one.number for one in self._log(task_id)[-self._rules.recoveries_max :]}
        return any(call.attempt in last for call in self._calls[task_id])

    # -- what was accepted is there, once, and nothing else -------------------------------------

    def creates(self) -> Iterator[Breach]:
        history = self._history
        for name, task_id in history.accepted.items():
            task = self._tasks.get(task_id)
            if task is None or task.name != name:
                yield Breach("lost", f"{name} was accepted as {task_id}, which is {task}")
        for task_id in history.not_found:
            yield Breach("lost", f"a client was told that there is no task {task_id}")
        names = Counter(task.name for task in self._found.tasks)
        for name, count in names.items():
            if name not in history.accepted and name not in history.unknown:
                yield Breach("unexpected", f"{name} is there; refused: {name in history.refused}")
            if count > 1:
                yield Breach("doubled", f"{name} was sent once and is there {count} times")
        for batch in history.batches:
            if 0 < (count := sum(name in names for name in batch)) < len(batch):
                yield Breach("torn", f"{count} of the batch {batch}")
        for name, task_ids in history.replays.items():
            if len(task_ids) > 1:
                yield Breach("doubled", f"the key of {name} was answered with {sorted(task_ids)}")

    # -- events: complete, and announced as they are --------------------------------------------

    def stream(self) -> Iterator[Breach]:
        seqs = [event.seq for event in self._found.events]
        if seqs != list(range(1, len(seqs) + 1)):
            yield Breach("gap", f"{len(seqs)} events, the last {seqs[-1:]}: numbers are missing")
        watched = self._history.watched
        for before, after in pairwise(watched):
            if after.seq != before.seq + 1:
                yield Breach("gap", f"the watcher got {after.seq} after {before.seq}")
        durable = {event.seq: event for event in self._found.events}
        for event in watched:
            if durable.get(event.seq) != event:
                yield Breach("premature", f"told {event}, kept {durable.get(event.seq)}")

    # -- every task has ended, and as it had to --------------------------------------------------

    def ends(self) -> Iterator[Breach]:
        for task in self._found.tasks:
            match task.status:
                case Status.COMPLETED:
                    continue
                case Status.CANCELLED:
                    if task.id not in self._history.asked_to_cancel:
                        yield Breach("wrong end", f"nobody cancelled {task}")
                case Status.FAILED:
                    last = self._log(task.id)[-1:]
                    # No load uses up a task's attempts: all else goes well after a few at most.
                    refused = task.path == "/permanent" and (
                        [one.error_class for one in last] == [ErrorClass.HTTP_STATUS]
                    )
                    if not (refused or self.is_parked(task.id)):
                        yield Breach("wrong end", f"{task} has Failed after {last}")
                case _:
                    yield Breach("stuck", f"{task}")

    # -- its events are a way through the table, with one end ------------------------------------

    def paths(self) -> Iterator[Breach]:
        for task in self._found.tasks:
            if (why := _broken_path(task, self._events[task.id])) is not None:
                yield Breach("stale", f"{task}: {why}")
        for task_id in self._events.keys() - self._tasks.keys():
            yield Breach("lost", f"there are events of {task_id}, which is not there")

    # -- its attempts are logged, each once ------------------------------------------------------

    def logs(self) -> Iterator[Breach]:
        for task in self._found.tasks:
            log = self._log(task.id)
            if [one.number for one in log] != list(range(1, task.attempt + 1)):
                yield Breach("stale", f"{task} has the attempts {[one.number for one in log]}")
            good = [one.number for one in log if one.error_class is None]
            if good != ([task.attempt] if task.status is Status.COMPLETED else []):
                yield Breach("stale", f"{task}: the attempts {good} went well")
            free = {ErrorClass.LOST, ErrorClass.INTERRUPTED, ErrorClass.CANCELLED}
            wrong = [one for one in log if one.counted == (one.error_class in free)]
            if wrong:
                yield Breach("miscounted", f"{task}: {wrong}")

    # -- callbacks: each attempt once, and what is recorded is what was answered ----------------

    def callbacks(self) -> Iterator[Breach]:
        for task_id, calls in self._calls.items():
            numbers = [call.attempt for call in calls]
            if (task := self._tasks.get(task_id)) is None:
                yield Breach("unexpected", f"{task_id} was called and is not there")
                continue
            if len(set(numbers)) < len(numbers):
                yield Breach("stale", f"{task}: attempts {numbers} were called")
            if self._rules.in_order and numbers != sorted(numbers):
                yield Breach("stale", f"{task}: attempts were called in the order {numbers}")
            if max(numbers) > task.attempt:
                yield Breach("stale", f"{task} was called for attempt {max(numbers)}")
        for task_id, log in self._found.attempts.items():
            answers = {call.attempt: call.status for call in self._calls[task_id]}
            for one in log:
                status = answers.get(one.number, 0)
                fits = status // 100 == 2 if one.error_class is None else status >= 300
                if one.error_class in ANSWERED and not fits:
                    yield Breach("stale", f"{task_id} records {one}, the callee said {status}")

    def repeats(self, breaches: list[Breach]) -> list[int]:
        """How many callbacks were made again for each cut. A call that was not refused is followed
        by another only if it was in flight at a cut, and the log tells why."""
        cuts = self._history.cuts
        counts = [0] * len(cuts)
        for task_id, calls in self._calls.items():
            classes = {one.number: one.error_class for one in self._log(task_id)}
            for call in sorted(calls, key=lambda call: call.attempt)[:-1]:
                if call.status >= 300:
                    continue
                hits = [n for n, cut in enumerate(cuts) if cut.hits(call, self._rules.commit_s)]
                if not hits or classes.get(call.attempt) not in self._rules.excuses:
                    why = f"{classes.get(call.attempt)}, hit by {len(hits)} cuts"
                    breaches.append(Breach("repeated", f"{call} was made again: {why}"))
                else:
                    counts[hits[-1]] += 1
        for number, count in enumerate(counts):
            if count > self._rules.repeats_max:
                breaches.append(Breach("repeated", f"{count} callbacks for cut {number}"))
        return counts

    # -- whatever a client was told holds --------------------------------------------------------

    def clients(self) -> Iterator[Breach]:
        history = self._history
        for task_id, when in history.cancelled.items():
            task = self._tasks.get(task_id)
            if task is None or task.status is not Status.CANCELLED:
                yield Breach("stale", f"a client was told that it is Cancelled: {task}")
            late = [
                call
                for call in self._calls[task_id]
                if call.began > when + self._rules.on_its_way_s
            ]
            if late:
                yield Breach("stale", f"called after it was Cancelled: {late}")
        for task_id, status in history.told.items():
            task = self._tasks.get(task_id)
            if task is None or task.status is not status:
                yield Breach("stale", f"a client was told that it is {status}: {task}")
        for task_id, times in history.taken.items():
            leases = sum(event.after is Status.PENDING for event in self._events[task_id])
            if leases < times:
                yield Breach("stale", f"{task_id} was handed out {times} times, logged {leases}")

    # -- a server that lives cuts nobody off ----------------------------------------------------

    def cut_off(self) -> Iterator[Breach]:
        """Only what came while the server was gone or held is excused. One that was held may wake
        up to a client that has been silent for too long."""
        cuts = [cut for cut in self._history.cuts if cut.of_server]
        for when in self._history.cut_off:
            if not any(cut.at <= when <= cut.until for cut in cuts):
                yield Breach("cut off", f"a client at {when:.3f}, by a server that lived")

    # -- tasks of one key run one at a time, in their order --------------------------------------

    def keys(self) -> Iterator[Breach]:
        of_key: defaultdict[str, list[tuple[int, TaskSeen]]] = defaultdict(list)
        for task in self._found.tasks:
            if task.partition_key is not None and (events := self._events[task.id]):
                of_key[task.partition_key].append((events[0].seq, task))
        for key, tasks in of_key.items():
            free_at, before = 0, None
            for _, task in sorted(tasks, key=lambda each: each[0]):
                events = self._events[task.id]
                began = [event.seq for event in events if event.after is Status.PROCESSING]
                if began and began[0] < free_at:
                    yield Breach("out of order", f"{task} of {key} began before {before} ended")
                free_at, before = max(free_at, events[-1].seq), task


def _broken_path(task: TaskSeen, events: list[EventSeen]) -> str | None:
    """Why the events are no way from Queued to where the task is, or nothing."""
    status: Status | None = None
    attempt = 0
    for event in events:
        follows = TRANSITIONS[status].values() if status is not None else [Status.QUEUED]
        if event.before is not status or event.after not in follows:
            return f"from {event.before} to {event.after} after {status}"
        if status in ENDED:
            return f"{event.after} after its end"
        attempt += event.after is Status.PROCESSING
        if event.attempt != attempt:
            return f"attempt {event.attempt} instead of {attempt} in {event}"
        status = event.after
    if (status, attempt) != (task.status, task.attempt):
        return f"its events end with {status}, attempt {attempt}"
    return None
