"""The kinds of tasks of a soak, and what has to become of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from benchmarks.driver.load import task

SCHEDULED_S: Final = 2.0
SLOW_S: Final = 0.2
_NEVER_S: Final = 3600.0  # a task that is cancelled does not fall due before
_RETRIES: Final = {"maxAttempts": 5, "initialIntervalSeconds": 0.5, "maxIntervalSeconds": 2.0}


@attrs.frozen(kw_only=True)
class Kind:
    """One kind of task. ``failures`` attempts are answered with 503 before one is with 200."""

    name: str
    share: int  # of a round
    ends: str = "Completed"
    failures: int = 0
    hold_s: float = 0.0  # how long its callback takes
    delay_s: float = 0.0  # it must not be called before
    more: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def cancelled(self) -> bool:
        """Whether it is taken back as soon as it was accepted."""
        return self.ends == "Cancelled"

    def body(self, number: int, callee: str) -> dict[str, object]:
        """What is sent to create one."""
        delay = {"delaySeconds": self.delay_s} if self.delay_s else {}
        return task(number, f"{callee}/{self.name}", "auto") | delay | dict(self.more)


KINDS: Final = (
    Kind(name="good", share=12),
    Kind(name="flaky", share=3, failures=1, more={"retryPolicy": _RETRIES}),
    Kind(name="slow", share=2, hold_s=SLOW_S),
    Kind(name="scheduled", share=2, delay_s=SCHEDULED_S),
    Kind(name="cancelled", share=1, ends="Cancelled", delay_s=_NEVER_S),
)
BY_NAME: Final = {kind.name: kind for kind in KINDS}
ROUND: Final = tuple(kind for kind in KINDS for _ in range(kind.share))


def kind_of(number: int) -> Kind:
    """The kinds take turns, each as often as its share."""
    return ROUND[number * 7 % len(ROUND)]  # 7 and 20 have no common factor: well mixed
