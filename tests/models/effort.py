"""How hard the models are tried: the same examples every time, or by ``MODEL_EXAMPLES`` others."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def effort(examples: int, *, steps: int) -> settings:
    """So many examples of so many steps, always the same. With ``MODEL_EXAMPLES=n`` in the
    environment n of them, chosen anew at every run."""
    asked = os.environ.get("MODEL_EXAMPLES")
    return settings(
        max_examples=int(asked) if asked else examples,
        derandomize=asked is None,
        database=None,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=asked is not None,
    )
