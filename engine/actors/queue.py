"""The queue actor: decides who gets which task next.

Executors and clients ask it for work with a one-shot reply. When it has a task for one of them, it
passes the question on to the repository, which claims the task and answers the asker itself. So
one message crosses each border, the asker cannot get a task that is not durably its own, and no
credits have to be counted: an open question *is* a credit.

If nothing waits, a new task is claimed for whoever asks while it still lies in the repository's
inbox: both are one commit then, and its callback begins one commit earlier.

It never awaits a send. Where the repository has no room, it keeps task and asker and tries again.

It also keeps the books of where callbacks go: it knows what it handed to which executor, and that
executor's next question tells how it went. So what a destination is held to costs no message.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import assert_never

import trio

from engine.config import EngineConfig
from engine.core.backlog import ADMITTED, Backlog
from engine.core.commands import Claim, Refill, Take
from engine.core.destinations import Admission, AllFigures, Destinations, Hold, OthersWait
from engine.core.entries import Arrival, Entry, Reading, Wanted
from engine.core.pace import Pace, pool_size
from engine.core.task import Lane, TaskId
from engine.errors import (
    EngineError,
    EngineStopping,
    Overloaded,
    QueueEmpty,
    StoreUnavailable,
)
from engine.messages import (
    Arriving,
    Next,
    Offered,
    QueueMessage,
    Refilled,
    RepositoryMessage,
    Request,
    Withdrawn,
)
from engine.ports.broker import Delivery
from engine.ports.clock import Clock

from .mailbox import Inbox

_BUSY_PAUSE_S = 0.005  # before a full repository inbox is tried again
_LONGEST_SLEEP_S = 60.0  # the wall clock may be set; look at it now and then
_SHORTEST_SLEEP_S = 0.001  # sums of times are not exact: do not look too early again and again
_HELD_SLEEP_S = 1.0  # while a destination holds tasks back: what is recent becomes old


class _RefillReply:
    """Passes what was read from the store on to the queue's own inbox."""

    abandoned = False

    def __init__(self, queue: Queue, lane: Lane) -> None:
        self._queue = queue
        self._lane = lane

    def answer(self, value: Reading) -> None:
        self._queue.refilled(Refilled(self._lane, value))

    def fail(self, error: Exception) -> None:  # noqa: ARG002 - the repository has logged it
        self._queue.refilled(Refilled(self._lane, None))


class Queue:
    """Owns the backlog windows, the destinations and the askers. Receives ``QueueMessage``s; sends ``Request``s to
    the repository. Stops when its inbox is closed and empty, and sends home who still asks."""

    def __init__(
        self,
        inbox: Inbox[QueueMessage],
        repository: Inbox[RepositoryMessage],
        clock: Clock,
        config: EngineConfig,
    ) -> None:
        self._inbox = inbox
        self._repository = repository
        self._clock = clock
        self._config = config
        self._destinations = Destinations(config, clock.monotonic())
        self._pace = Pace(config.executors)
        # What a destination that is held may be given before its side has to be read again.
        self._side_size = min(2 * config.unhealthy_limit, config.window)
        self._backlogs = {lane: Backlog(config.window, self._side_size) for lane in Lane}
        self._askers: dict[Lane, deque[Next]] = {lane: deque() for lane in Lane}
        # So many may ask; more than there are executors are some that have gone.
        self._askers_max = {Lane.RUN: pool_size(config.executors), Lane.TAKE: config.takers_max}
        # Who wants to know at once whether the queue is empty. A hint can be on its way while the
        # question is here, so only the store may say "empty": these still wait for it to be asked.
        self._doubts: dict[Lane, set[Next]] = {lane: set() for lane in Lane}
        self._readings: list[Refilled] = []
        self._arriving: list[Arrival] = []
        self._busy_s: float | None = None  # when the repository or the store must be left alone
        self._lost_track = False
        self._rests_until = float("-inf")  # the store has failed of late
        self._turn_s = clock.monotonic()  # when the messages that are being handled were read

    def __repr__(self) -> str:
        lanes = ", ".join(
            f"{lane} {backlog!r} {len(self._askers[lane])} askers"
            for lane, backlog in self._backlogs.items()
        )
        return f"<Queue {lanes}>"

    @property
    def waiting(self) -> dict[Lane, int]:
        """Open questions per lane: for ``run`` these are the executors that are idle, or whose last
        result is just being stored."""
        return {lane: sum(not a.reply.abandoned for a in self._askers[lane]) for lane in Lane}

    def hold(self, destination: str) -> Hold | None:
        """Why tasks that go there are not handed out now, if that is so."""
        others_wait = self._backlogs[Lane.RUN].others_wait
        return self._destinations.hold(destination, others_wait, self._clock.monotonic())

    def destinations(self) -> AllFigures:
        """How the destinations do."""
        return self._destinations.figures(self._clock.monotonic())

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until the inbox ends."""
        self._hand_out()
        task_status.started()
        try:
            while True:
                messages: list[QueueMessage] = []
                with trio.move_on_after(self._pause_s()):
                    messages.append(await self._inbox.receive())
                messages += self._inbox.receive_nowait()
                self._turn_s = self._clock.monotonic()
                for message in messages:
                    self._handle(message)
                self._hand_out()
        except trio.EndOfChannel:
            pass
        finally:
            for message in self._inbox.receive_nowait():  # if it was cut off
                if isinstance(message, Next):
                    message.reply.fail(EngineStopping())
            self._inbox.abandon()
            for askers in self._askers.values():
                for asker in askers:
                    asker.reply.fail(EngineStopping())

    def refilled(self, message: Refilled) -> None:
        """The store was read. Kept even if the inbox is full: there is one per lane at most."""
        self._readings.append(message)
        with contextlib.suppress(Overloaded):  # then it is awake, and looks at them anyway
            self._inbox.tell(message)

    def withdraw(self, task_ids: tuple[TaskId, ...]) -> None:
        """These tasks wait no longer. If there is no room to say so, claims for them will fail."""
        with contextlib.suppress(Overloaded):
            self._inbox.tell(Withdrawn(task_ids))

    def lost_track(self, rest_s: float) -> None:
        """Tasks that were handed out may still wait in the store. For so long it is left alone: every
        executor would have it try a claim that fails."""
        self._lost_track = True
        self._rests_until = max(self._rests_until, self._clock.monotonic() + rest_s)
        with contextlib.suppress(Overloaded):
            self._inbox.tell(Withdrawn(()))

    def _handle(self, message: QueueMessage) -> None:
        match message:
            case Next():
                self._ask(message)
            case Offered(delivery=delivery):
                self._offer(delivery)
            case Arriving(tasks=tasks):
                self._arriving += tasks
            case Withdrawn(task_ids=task_ids):
                for backlog in self._backlogs.values():
                    for task_id in task_ids:
                        backlog.remove(task_id)
            case Refilled():
                pass  # it only wakes us; the reading stands in self._readings
            case _:
                assert_never(message)

    def _ask(self, asker: Next) -> None:
        if asker.seat is not None:
            self._destinations.ended(asker.seat, self._turn_s, asker.report)
        if asker.report is not None:
            self._pace.ended(self._turn_s)
        if not asker.patient:
            self._doubts[asker.lane].add(asker)
        askers, most = self._askers[asker.lane], self._askers_max[asker.lane]
        if len(askers) >= most:
            askers = self._askers[asker.lane] = deque(a for a in askers if not a.reply.abandoned)
        if asker.owner is not None:  # an executor: who called last has connections that are open
            askers.appendleft(asker)
        elif len(askers) < most:
            askers.append(asker)
        else:
            asker.reply.fail(Overloaded("too many clients wait for a task"))

    def _offer(self, delivery: Delivery) -> None:
        now = self._clock.now()
        if delivery.missed:
            for backlog in self._backlogs.values():
                backlog.forget()
        for hint in delivery.hints:
            self._backlogs[hint.lane].offer(hint.entry, now)

    def _hand_out(self) -> None:
        """Match tasks and askers, as far as both are there."""
        now = self._clock.now()
        arriving, self._arriving = self._arriving, []
        self._busy_s = None
        for read in self._readings:
            backlog = self._backlogs[read.lane]
            if read.reading is None:
                backlog.refill_failed()
                self._busy_s = self._config.store_retry_s
                self._send_home(read.lane, StoreUnavailable("the queue cannot be read now"))
            else:
                backlog.refill(read.reading, now)
        self._readings.clear()
        if self._lost_track:
            self._lost_track = False
            for backlog in self._backlogs.values():
                backlog.forget()
        self._backlogs[Lane.RUN].wake(self._destinations.changed(self._turn_s))
        if self._turn_s < self._rests_until:
            self._busy_s = self._rests_until - self._turn_s
            return
        for lane, backlog in self._backlogs.items():
            admit = self._admit if lane is Lane.RUN else None
            while (asker := self._first_asker(lane)) is not None and self._has_room(lane):
                entry = backlog.pick(now, admit)
                if entry is None:
                    break
                if not self._forward(asker, entry):
                    backlog.offer(entry, now)
                    break
            self._refill_if_low(lane, backlog)
            if lane is Lane.TAKE and backlog.drained:  # executors always wait
                self._send_home(lane, QueueEmpty())
        if arriving:
            self._start(arriving)

    def _start(self, arriving: Sequence[Arrival]) -> None:
        """Have these claimed by who asks, if nothing else could be, and there is room for them all:
        else it matters which go first, and they wait until they are stored and offered. Should one
        not be stored after all, its claim fails."""
        backlog = self._backlogs[Lane.RUN]
        if len(arriving) > min(self._room, len(self._askers[Lane.RUN])) or not backlog.drained:
            return
        for task in arriving:
            asker = self._first_asker(Lane.RUN)
            if asker is None:
                return
            if self._admit(task.destination, backlog.others_wait) in ADMITTED:
                self._forward(asker, task)

    def _first_asker(self, lane: Lane) -> Next | None:
        askers = self._askers[lane]
        while askers and askers[0].reply.abandoned:
            self._doubts[lane].discard(askers.popleft())
        return askers[0] if askers else None

    @property
    def _room(self) -> int:
        """How many more tasks may be claimed for executors: more ask than may run at once."""
        most = self._config.executors + self._pace.ahead(self._turn_s)
        return most - self._destinations.in_flight

    def _has_room(self, lane: Lane) -> bool:
        return lane is not Lane.RUN or self._room > 0

    def _can_serve(self, lane: Lane) -> bool:
        """Whether somebody asks and may be given something. Who may not will be when an attempt has
        ended, and that is told."""
        return bool(self._askers[lane]) and self._has_room(lane)

    def _admit(self, destination: str, others_wait: OthersWait) -> Admission:
        return self._destinations.admission(destination, others_wait, self._turn_s)

    def _forward(self, asker: Next, task: Entry | Arrival) -> bool:
        """Have the task claimed for the first asker of its lane; whether there was room to say so."""
        command = (
            Claim(task.task_id, asker.owner)
            if asker.owner is not None
            else Take(task.task_id, asker.lease_s)
        )
        if not self._tell_repository(Request(command, asker.reply)):
            return False
        self._doubts[asker.lane].discard(self._askers[asker.lane].popleft())
        if asker.seat is not None:
            self._destinations.started(asker.seat, task.destination, self._turn_s)
        return True

    def _refill_if_low(self, lane: Lane, backlog: Backlog) -> None:
        wanted = backlog.wanted(page=bool(self._doubts[lane]))
        if wanted is None or self._busy_s is not None:
            return
        if self._tell_repository(Request(self._refill(lane, wanted), _RefillReply(self, lane))):
            backlog.refill_started(wanted)
            if wanted.page:
                self._doubts[lane].clear()

    def _refill(self, lane: Lane, wanted: Wanted) -> Refill:
        return Refill(
            lane,
            self._config.window,
            page=wanted.page,
            without=wanted.without,
            sides=wanted.sides,
            side_limit=self._side_size if wanted.sides else 0,
        )

    def _tell_repository(self, request: RepositoryMessage) -> bool:
        try:
            self._repository.tell(request)
        except Overloaded:
            self._busy_s = self._busy_s or _BUSY_PAUSE_S
            return False
        return True

    def _send_home(self, lane: Lane, why: EngineError) -> None:
        """There is nothing to give: answer those who do not want to wait for it."""
        patient: deque[Next] = deque()
        for asker in self._askers[lane]:
            if asker.patient or asker in self._doubts[lane]:
                patient.append(asker)
            else:
                asker.reply.fail(why)
        self._askers[lane] = patient

    def _pause_s(self) -> float:
        """How long nothing has to be done, unless a message comes."""
        if self._busy_s is not None:
            return self._busy_s
        now = self._clock.now()
        dues = [due for lane in Lane if self._can_serve(lane)
                if (due := self._backlogs[lane].next_due()) is not None]  # fmt: skip
        soonest = min(dues, default=now + timedelta(seconds=_LONGEST_SLEEP_S))
        pause_s = min(max((soonest - now).total_seconds(), 0.0), _LONGEST_SLEEP_S)
        if self._can_serve(Lane.RUN) and self._backlogs[Lane.RUN].holds_back:
            change_s = self._destinations.next_change(self._clock.monotonic())
            held_s = _HELD_SLEEP_S if change_s is None else max(change_s, _SHORTEST_SLEEP_S)
            pause_s = min(pause_s, held_s, _HELD_SLEEP_S)
        return pause_s
