"""``python -m benchmarks.driver``: a plan as JSON on stdin, its result as JSON on stdout."""

from __future__ import annotations

import gc
import json
import resource
import sys
from typing import Final

import attrs

from benchmarks.driver.plan import Plan, Readers
from benchmarks.driver.run import run

_DESCRIPTORS: Final = 65_536


def main() -> None:
    """Do what the plan says. Exit status 0, also when the stack did not do its part."""
    fields = json.load(sys.stdin)
    fields["readers"] = tuple(Readers(**each) for each in fields.get("readers", ()))
    plan = Plan(**fields | {"roots": tuple(fields.get("roots", ()))})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and a pause would look like the stack's
    json.dump(attrs.asdict(run(plan)), sys.stdout)


if __name__ == "__main__":
    main()
