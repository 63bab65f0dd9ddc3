"""When to try again. Decides; does nothing."""

from __future__ import annotations

import attrs

from .outcome import Verdict
from .task import RetryPolicy


@attrs.frozen
class RetryIn:
    """Try again after so many seconds."""

    seconds: float


@attrs.frozen
class GiveUp:
    """Do not try again."""

    reason: str


def backoff_s(policy: RetryPolicy, failures: int, jitter: float) -> float:
    """Pause after the ``failures``-th failure. ``jitter`` is a random number in [0, 1)."""
    exponent = min(failures - 1, 1000)  # beyond that a float would overflow; max rules long before
    try:
        grown = policy.initial_interval_s * policy.multiplier**exponent
    except OverflowError:
        grown = policy.max_interval_s
    longest = min(grown, policy.max_interval_s)
    return longest * jitter if policy.jitter else longest


def decide(
    policy: RetryPolicy,
    failures: int,
    verdict: Verdict,
    *,
    asked_s: float | None,
    asked_max_s: float,
    jitter: float,
) -> RetryIn | GiveUp:
    """What follows a failed attempt.

    ``failures`` counts the attempts used up, this one included; ``asked_s`` is the callee's
    Retry-After, honoured up to ``asked_max_s``. An uncounted attempt is repeated after that alone.
    """
    if verdict is Verdict.UNCOUNTED:
        return RetryIn(min(asked_s or 0.0, asked_max_s))
    if verdict is Verdict.PERMANENT:
        return GiveUp("the callback refused it for good")
    if failures >= policy.max_attempts:
        most = policy.max_attempts
        return GiveUp(f"all {most} attempts failed" if most > 1 else "its only attempt failed")
    planned = backoff_s(policy, failures, jitter)
    return RetryIn(max(planned, min(asked_s or 0.0, asked_max_s)))
