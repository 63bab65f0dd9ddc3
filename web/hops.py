"""``X-Task-Hops``: how many callbacks in a row led to this request.

Every callback carries it, one more than its task has. Who creates a task because of a callback
passes it on; where a callback reaches this API directly, it is there by itself. So tasks that create
tasks come to an end, also when they go round through other servers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from engine.core.task import HOPS_MAX

from .problems import Problem, invalid

HEADER = "X-Task-Hops"
_NUMBER = re.compile(r"[0-9]{1,6}")


def hops_of(headers: Mapping[str, str]) -> int:
    """The hops of a request, 0 without the header; raises a 400 if they are too many or none."""
    given = headers.get(HEADER)
    if given is None:
        return 0
    if not _NUMBER.fullmatch(given):
        raise _refused(f"must be a number from 0 to {HOPS_MAX}, as the callback carried it")
    hops = int(given)
    if hops > HOPS_MAX:
        raise _refused(
            f"is {hops}: at most {HOPS_MAX} callbacks in a row may each create a task, and this is "
            f"number {hops}; if this is no loop, leave the header out"
        )
    return hops


def _refused(detail: str) -> Problem:
    return invalid([(HEADER, detail)])
