"""Runs the driver in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

import attrs
import cattrs
import trio

from benchmarks.driver.plan import Plan, Result
from benchmarks.stack import ROOT

_SPARE_S: Final = 60.0  # for starting, warming up, asking and adding up


class DriverError(Exception):
    """The driver itself failed; the text is what it wrote."""


async def drive(plan: Plan) -> Result:
    """Do what the plan says. Raises DriverError; a stack that fails is a result."""
    try:
        with trio.fail_after(plan.limit_s + _SPARE_S):
            done = await trio.run_process(
                [sys.executable, "-m", "benchmarks.driver"],
                stdin=json.dumps(attrs.asdict(plan)).encode(),
                capture_stdout=True,
                capture_stderr=True,
                cwd=ROOT,
            )
    except subprocess.CalledProcessError as error:
        raise DriverError(error.stderr.decode(errors="replace")[-2000:]) from error
    except trio.TooSlowError as error:
        raise DriverError(f"it took more than {plan.limit_s + _SPARE_S:.0f} s") from error
    return cattrs.structure(json.loads(done.stdout), Result)


def driver_us(result: Result) -> float:
    """What the driver itself cost, in microseconds of CPU a task."""
    return result.driver_cpu_s * 1e6 / max(1, result.accepted)
