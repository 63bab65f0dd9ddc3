"""What was done and seen in a run: by the clients, by the server's own word, by the callee."""

from __future__ import annotations

from collections import Counter

import attrs

from engine.core.task import ErrorClass, Status


@attrs.frozen
class TaskSeen:
    """A task as the API shows it at the end."""

    id: str
    name: str
    status: Status
    attempt: int
    path: str = "/good"  # of its callback
    partition_key: str | None = None


@attrs.frozen
class AttemptSeen:
    """An attempt as the API shows it."""

    number: int
    error_class: ErrorClass | None = None
    counted: bool = True


@attrs.frozen
class EventSeen:
    """A change of status as the API tells it."""

    seq: int
    task_id: str
    before: Status | None
    after: Status
    attempt: int = 0


@attrs.frozen
class CallSeen:
    """A callback as the callee saw it, on ``time.perf_counter``; status 0: it got no answer."""

    task_id: str
    attempt: int
    began: float
    ended: float | None
    status: int


@attrs.frozen
class Cut:
    """The server was killed, stopped or held, and when another one could be asked; or the callee
    was held."""

    at: float
    until: float
    of_server: bool = True

    def hits(self, call: CallSeen, slack_s: float) -> bool:
        """Whether the call was in flight then; ``slack_s`` before, its answer may not have become
        durable yet."""
        return call.began < self.until and (call.ended is None or call.ended > self.at - slack_s)


@attrs.define
class History:
    """What clients have sent, and what they were told. Every name is sent as one task only."""

    accepted: dict[str, str] = attrs.field(factory=dict)  # name -> id, of every 201
    unknown: set[str] = attrs.field(factory=set)  # names whose answer never came
    refused: set[str] = attrs.field(factory=set)  # names answered with 429 or 503
    batches: list[tuple[str, ...]] = attrs.field(factory=list)  # names sent together
    replays: dict[str, set[str]] = attrs.field(
        factory=dict
    )  # name -> ids its key was answered with
    not_found: set[str] = attrs.field(factory=set)  # ids it was told of and then answered 404 for
    taken: Counter[str] = attrs.field(factory=Counter)  # id -> dequeues answered with it
    asked_to_cancel: set[str] = attrs.field(factory=set)  # ids, whatever was answered
    cancelled: dict[str, float] = attrs.field(factory=dict)  # id -> when the 204 came
    told: dict[str, Status] = attrs.field(factory=dict)  # id -> the end an execute was told
    watched: list[EventSeen] = attrs.field(factory=list)  # by one watcher that resumed
    cuts: list[Cut] = attrs.field(factory=list)
    cut_off: list[float] = attrs.field(factory=list)  # when a client noticed that it was

    @property
    def sent(self) -> set[str]:
        """All names."""
        return self.accepted.keys() | self.unknown | self.refused


@attrs.frozen
class Found:
    """What there is when everything has ended."""

    tasks: list[TaskSeen]
    attempts: dict[str, list[AttemptSeen]]
    events: list[EventSeen]  # all of them, in order
    calls: list[CallSeen]
