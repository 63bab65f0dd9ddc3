"""What a receiver is asked: calls that differ from an honest one in one thing each."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from engine import Secret, Status, Task, TaskId, TaskSpec
from engine.core.callback import CallbackRequest, build_request

TASK_NAME: Final = "ringback check-target"
_OLD_S: Final = 3600.0  # receivers should take five minutes


class Signing(enum.Enum):
    """Whose signatures a call carries."""

    OURS = enum.auto()
    FOREIGN = enum.auto()  # of a secret that the receiver cannot know
    FOREIGN_AND_OURS = enum.auto()
    NONE = enum.auto()


class Wanted(enum.Enum):
    """What a good receiver does with a call."""

    ACCEPT = enum.auto()
    REFUSE = enum.auto()


class Level(enum.StrEnum):
    """How good it is that it did what it did."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@attrs.frozen(kw_only=True)
class Probe:
    """One question: the call, what is wanted, and what it means if the receiver does otherwise."""

    name: str  # for scripts
    title: str
    wanted: Wanted
    signing: Signing = Signing.OURS
    again: bool = False  # the task of the first probe, on its second attempt
    age_s: float = 0.0
    slowly: bool = False
    otherwise: str = ""
    level: Level = Level.FAIL
    advice: str = ""
    unseen: str = ""  # what we cannot know even if it did as it should

    @property
    def needs_secret(self) -> bool:
        """Whether the question has no meaning for unsigned calls."""
        return self.signing is not Signing.OURS or self.age_s > 0


PROBES: Final[Sequence[Probe]] = (
    Probe(
        name="call",
        title="a call as Ringback makes it",
        wanted=Wanted.ACCEPT,
    ),
    Probe(
        name="duplicate",
        title="the same call again",
        wanted=Wanted.ACCEPT,
        again=True,
        otherwise="a duplicate counts as a failure and is tried again until the task has Failed",
        advice="answer 2xx to a webhook-id that you have already dealt with",
        unseen="whether it did the work twice cannot be seen from here",
    ),
    Probe(
        name="rotation",
        title="two signatures, the second one right",
        wanted=Wanted.ACCEPT,
        signing=Signing.FOREIGN_AND_OURS,
        otherwise="it will refuse calls while a secret is being rotated",
        advice="compare each of the blank-separated signatures, and accept if one is right",
    ),
    Probe(
        name="wrong-signature",
        title="a wrong signature",
        wanted=Wanted.REFUSE,
        signing=Signing.FOREIGN,
        otherwise="it accepts forged calls",
        advice="verify the signature before anything else, and answer 401 if it is wrong",
    ),
    Probe(
        name="no-signature",
        title="no signature",
        wanted=Wanted.REFUSE,
        signing=Signing.NONE,
        otherwise="it accepts calls of anybody",
        advice="answer 401 if there is no webhook-signature",
    ),
    Probe(
        name="old-timestamp",
        title="a call that was signed an hour ago",
        wanted=Wanted.REFUSE,
        age_s=_OLD_S,
        otherwise="who has recorded a call can send it again",
        level=Level.WARN,
        advice="refuse a webhook-timestamp that is more than five minutes off",
    ),
    Probe(
        name="slow-body",
        title="a body that arrives slowly",
        wanted=Wanted.ACCEPT,
        slowly=True,
        otherwise="calls over a bad network will fail",
        advice="wait some seconds for the whole body, or answer 408",
    ),
)


@attrs.frozen(kw_only=True)
class Target:
    """The receiver to be checked, and what the task looks like that it is sent."""

    url: str
    secrets: tuple[Secret, ...] = attrs.field(default=(), repr=False)
    payload: Any = attrs.field(factory=lambda: {"probe": True})
    headers: Mapping[str, str] = attrs.field(factory=dict)
    timeout_s: float = 10.0  # of one call
    slow_s: float = 3.0  # how long the slow body takes

    def spec(self) -> TaskSpec:
        """The task; it may break rules of the engine."""
        return TaskSpec(
            name=TASK_NAME,
            callback_url=self.url,
            payload=self.payload,
            headers=dict(self.headers),
            timeout_s=self.timeout_s,
        )

    def probes(self) -> list[Probe]:
        """The probes that can be sent."""
        return [probe for probe in PROBES if self.secrets or not probe.needs_secret]


def request_for(
    probe: Probe, target: Target, *, task_id: TaskId, now: datetime, foreign: Secret, span_id: str,
    user_agent: str,
) -> CallbackRequest:  # fmt: skip
    """The request of a probe, made as the engine makes those of its tasks."""
    secrets = {
        Signing.OURS: target.secrets,
        Signing.FOREIGN: (foreign,),
        Signing.FOREIGN_AND_OURS: (foreign, *target.secrets),
        Signing.NONE: (),
    }[probe.signing]
    sent_at = now - timedelta(seconds=probe.age_s)
    task = Task(
        id=task_id,
        spec=target.spec(),
        status=Status.PROCESSING,
        version=1,
        created_at=sent_at,
        updated_at=sent_at,
        due_at=sent_at,
        rank=0,
        attempt=2 if probe.again else 1,
    )
    return build_request(task, sent_at, span_id, user_agent, secrets=secrets)
