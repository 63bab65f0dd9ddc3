"""What actors say to each other: one union per inbox."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, TypeVar

import attrs

from .core.commands import AnyCommand
from .core.destination import Report
from .core.entries import Arrival, Reading
from .core.task import Event, Lane, Task, TaskId
from .ports.broker import Delivery

R_contra = TypeVar("R_contra", contravariant=True)


class Answerable(Protocol[R_contra]):
    """Where the answer to a question goes."""

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the answer any more."""
        ...

    def answer(self, value: R_contra) -> None:
        """Answer. Never blocks; does nothing if nobody waits."""
        ...

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        ...


@attrs.frozen
class Request:
    """To the repository: do this, and tell them."""

    command: AnyCommand
    reply: Answerable[Any]


RepositoryMessage: TypeAlias = Request


@attrs.frozen(eq=False)
class Next:
    """To the queue: whoever this is wants the next task of a lane.

    An executor (``owner`` is set) has it claimed for itself, a client has it leased. If
    ``patient`` it waits for one to come, else it is told ``QueueEmpty``.

    An executor has a ``seat``, an object by which it is known. Asking again says that whatever it
    was given before has ended, and ``report`` how; no report: nothing came of it.
    """

    lane: Lane
    reply: Answerable[Task]
    owner: str | None = None
    lease_s: float = 0.0
    patient: bool = True
    seat: object = None
    report: Report | None = None


@attrs.frozen
class Offered:
    """To the queue: these tasks wait."""

    delivery: Delivery


@attrs.frozen
class Arriving:
    """To the queue: the repository has been told to store these tasks. What is claimed for an
    executor now is stored and claimed in one transaction."""

    tasks: tuple[Arrival, ...]


@attrs.frozen
class Withdrawn:
    """To the queue: these tasks wait no longer."""

    task_ids: tuple[TaskId, ...]


@attrs.frozen
class Refilled:
    """To the queue: what was read of a lane; no reading if it could not be read."""

    lane: Lane
    reading: Reading | None


QueueMessage: TypeAlias = Next | Offered | Arriving | Withdrawn | Refilled


@attrs.frozen
class Committed:
    """To the status hub: these events are durable, in order of ``seq``. None: look yourself."""

    events: tuple[Event, ...]
