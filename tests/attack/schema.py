"""Everything that /openapi.json allows and forbids, tried by schemathesis; and JSON that is out of
the ordinary. No request may be answered with a 5xx, and every answer is as it is described."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import attrs
import click
import trio

from tests.attack.schema_documents import send_documents
from tests.attack.schema_hooks import CALLBACK, COUNTS
from tests.attack.target import Target, open_target
from tests.attack.verdict import RECORD, Came, claims, holds
from tests.support.server import environment

BAR: Final = "schemathesis"
BAR_ODD: Final = "odd JSON"
CASES: Final = 20_000
DOCUMENTS: Final = 100_000

ENDLESS: Final = "/api/v1/events"
"""Not tried: its answer is a stream without an end. ``tests/web/test_stream.py`` tries it."""

SYSTEMATIC: Final = 1_000
PER_EXAMPLE: Final = 35
"""Requests, about: of the phase that goes by the schema alone, the same with every seed; and of one
more example of each operation."""

LEFT_OUT: Final = "use_after_free"
"""That what was DELETEd is gone: here a task is then cancelled, and still there to be read."""

SETTINGS: Final = (
    "--wait-max",
    "0.3",
    "--wait-default",
    "0.3",
)  # or a request for a dead callee hangs
OPTIONS: Final = (
    *("--checks", "all", "--exclude-checks", LEFT_OUT, "--mode", "all"),
    *("--continue-on-failure", "--max-failures", "20", "--suppress-health-check", "all"),
    *("--generation-database", "none", "--warnings", "off", "--no-color"),
    *("--exclude-path", ENDLESS, "--request-timeout", "30"),
)
RUN_S: Final = 3600.0


@attrs.define
class Tried:
    """What came of it."""

    answered: Counter[str] = attrs.field(factory=Counter)  # by status
    failures: list[str] = attrs.field(factory=list)
    links: int = 0  # from one operation to another, that were followed

    @property
    def server_errors(self) -> int:
        """Answers that nobody should ever get."""
        return sum(count for status, count in self.answered.items() if status >= "5")


async def try_schema(target: Target, cases: int, seed: int, *, workers: int = 1) -> Tried:
    """At least so many requests, as schemathesis makes them; all of its checks but one."""
    tried = Tried()
    while (left := cases - tried.answered.total()) > 0 and not tried.failures:
        sys.stderr.write(f"  schemathesis, seed {seed}: {left:,} requests to go\n")
        if not tried.answered:
            left -= SYSTEMATIC
            phases = "coverage,fuzzing,stateful"
        else:
            phases = "fuzzing,stateful"
        run = ["--phases", phases, "--seed", str(seed), "--workers", str(workers)]
        run += ["--max-examples", str(max(5, left // PER_EXAMPLE))]
        await _run(target, run, target.place / f"counts-{seed}.json", tried)
        seed += 1
    return tried


async def _run(target: Target, options: Sequence[str], counts: Path, tried: Tried) -> None:
    env = environment({
        "SCHEMATHESIS_HOOKS": "tests.attack.schema_hooks",
        CALLBACK: target.callback(""),
        COUNTS: os.fspath(counts),
    })  # fmt: skip
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{target.url}/openapi.json"]
    with trio.fail_after(RUN_S):
        done = await trio.run_process(
            [*command, *OPTIONS, *options],
            capture_stdout=True,
            stderr=None,
            check=False,
            cwd=target.place,
            env=env,
        )
    _note(done, counts, tried)


def _note(done: subprocess.CompletedProcess[bytes], counts: Path, tried: Tried) -> None:
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        tried.failures.append(said[-20_000:])
    if not counts.exists():
        raise RuntimeError(f"schemathesis did not get to count its requests:\n{said[-2000:]}")
    tried.answered += Counter(json.loads(counts.read_text("utf-8")))
    if found := re.search(r"API Links:\s+(\d+) covered", said):
        tried.links += int(found[1])


def faults_in(log: str) -> list[str]:
    """Lines of the server's log that no request may cause."""
    return [line for line in log.splitlines() if "a request failed" in line or "Traceback" in line]


def by_status(answered: Counter[str]) -> str:
    """The statuses, the most frequent first."""
    return ", ".join(f"{status} ×{count:,}" for status, count in answered.most_common())


async def attack_schema(cases: int, seed: int) -> Came:
    """So many requests by schemathesis."""
    async with open_target(*SETTINGS) as target:
        tried = await try_schema(target, cases, seed, workers=2)
        faults = faults_in(target.log())
    for failure in tried.failures:
        sys.stderr.write(failure)
    asked = tried.answered.total()
    misses = {
        f"{tried.server_errors} 5xx": tried.server_errors,
        "a check has failed": tried.failures,
        "faults in the log": faults,
        f"fewer than {cases:,} requests": asked < cases,
        "no link was followed": not tried.links,
    }
    return Came(
        tried=f"{asked:,} requests from /openapi.json but for {ENDLESS}, {tried.links} links followed, "
        f"all checks but {LEFT_OUT}",
        seen=f"{tried.server_errors} 5xx, {len(tried.failures)} runs with a failure, {len(faults)} faults "
        f"in the log; {by_status(tried.answered)}",
        misses=[what for what, is_so in misses.items() if is_so],
    )


async def attack_documents(documents: int, seed: int) -> Came:
    """So many documents of odd JSON."""
    async with open_target(*SETTINGS) as target:
        answered = await trio.to_thread.run_sync(
            send_documents, target.url, documents, seed, abandon_on_cancel=True
        )
        faults = faults_in(target.log())
    others = sum(n for status, n in answered.items() if not "200" <= status < "500")
    misses = {
        f"{others} answers but 2xx and 4xx": others,
        "faults in the log": faults,
        f"fewer than {documents:,} documents": answered.total() < documents,
        "none was accepted": not answered["201"],
        "none was refused": not answered["400"],
    }
    return Came(
        tried=f"{answered.total():,} documents: deep, huge, NaN, surrogates, doubled keys, broken",
        seen=f"{others} answers but 2xx and 4xx, {len(faults)} faults in the log; "
        f"{by_status(answered)}",
        misses=[what for what, is_so in misses.items() if is_so],
    )


@click.command()
@click.option("--cases", default=CASES, show_default=True, help="Requests by schemathesis.")
@click.option("--documents", default=DOCUMENTS, show_default=True, help="Documents of odd JSON.")
@click.option("--seed", default=1, show_default=True)
@RECORD
def command(*, cases: int, documents: int, seed: int, record: bool) -> NoReturn:
    """Try all that the API's description allows and forbids."""
    claims(record=record, cases=(cases, CASES), documents=(documents, DOCUMENTS))
    command = f"schema --cases {cases} --documents {documents} --seed {seed}"
    held = [
        holds(BAR, command, partial(attack_schema, cases, seed), record=record),
        holds(BAR_ODD, command, partial(attack_documents, documents, seed), record=record),
    ]
    sys.exit(0 if all(held) else 1)
