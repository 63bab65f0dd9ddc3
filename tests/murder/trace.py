"""``python -m tests.murder trace``: every task is on disk before its client hears of it."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import click
import httpx

from tests.bars import Seen, say, told
from tests.murder.progress import block_in_new_place
from tests.murder.trace_images import Loss, lose_power, open_image
from tests.murder.trace_log import Call, calls_in, traced, wait_until_written, why_not
from tests.murder.trace_order import Order, Told, order_of, told_in
from tests.support.server import PROGRAM, running_server

ORDER: Final = "201 after fdatasync"
POWER: Final = "power loss"
WEAK_ORDER: Final = "201 after fdatasync, the check itself"
CONNECTIONS: Final = 8
WEAK: Final = (sys.executable, "-m", "tests.murder.trace_server")


@attrs.frozen
class Traced:
    """A server that took tasks, and all its system calls that matter."""

    database: str
    accepted: int
    calls: Sequence[Call]
    told: Sequence[Told]

    @property
    def order(self) -> Order:
        return order_of(self.calls, f"{self.database}-wal")

    def lose_power(self, images: int, seed: int, place: Path) -> list[Loss]:
        """What is lost at so many random places, by seed."""
        dice = random.Random(seed)
        first, last = self.told[0].begun, self.calls[-1].ended
        found = []
        for n in range(images):
            cut = dice.randrange(first, last)
            files = lose_power(self.calls, self.database, cut, dice)
            image = place / f"image {n}"
            if (loss := open_image(files, image, cut, self.told)) is not None:
                found.append(loss)
            shutil.rmtree(image)
        return found


def run_traced(place: Path, tasks: int, program: Sequence[str] = PROGRAM) -> Traced:
    """Let a server accept so many tasks at several connections, and read its trace."""
    place.mkdir()
    log = place / "trace"
    with running_server(place, program=traced(program, log)) as server:
        with httpx.Client(base_url=server.url, timeout=60) as client:

            def create(n: int) -> bool:
                body = {
                    "name": f"task {n}",
                    "callbackUrl": "http://127.0.0.1:1/",
                    "payload": "x" * (n * 37 % 2000),
                }
                return client.post("/api/v1/tasks", json=body).status_code == 201

            with ThreadPoolExecutor(CONNECTIONS) as threads:
                accepted = sum(threads.map(create, range(tasks)))
        pid = server.process.pid
    wait_until_written(log, pid)
    calls = list(calls_in(log))
    log.unlink()
    return Traced(str(place / "ringback.db"), accepted, calls, told_in(calls))


@click.command()
@click.option("--tasks", default=1000, show_default=True, help="tasks to be accepted under trace")
@click.option("--images", default=300, show_default=True, help="power losses to rebuild")
@click.option("--seed", default=0, show_default=True, help="where the power fails")
@click.option("--record", is_flag=True, help="keep the results for the table of the bars")
def command(tasks: int, images: int, seed: int, record: bool) -> None:
    """Trace a server's system calls, and rebuild what a power loss would leave."""
    if (reason := why_not()) is not None:
        raise click.ClickException(reason)
    asked = f"python -m tests.murder trace --tasks {tasks} --images {images} --seed {seed}"
    with (
        told(ORDER, f"{tasks} creates", asked, record=record),
        told(POWER, f"{images} images", asked, record=record),
        told(WEAK_ORDER, f"{tasks // 10} creates", asked, record=record),
    ):
        work = partial(_all, tasks=tasks, images=images, seed=seed, asked=asked)
        seen = block_in_new_place("trace", work)
        for one in seen:
            say(one, record=record)
    sys.exit(not all(one.held for one in seen))


def _all(place: Path, tasks: int, images: int, seed: int, asked: str) -> list[Seen]:
    """The lines of all three bars."""
    sys.stderr.write("tracing the server\n")
    full = run_traced(place / "full", tasks)
    seen = [_order_seen(full, tasks, asked)]
    sys.stderr.write(f"losing power {images} times\n")
    seen.append(_power_seen(full.lose_power(images, seed, place), full, images, asked))
    sys.stderr.write("tracing a server with synchronous=NORMAL, which has to be told apart\n")
    weak = run_traced(place / "weak", tasks // 10, WEAK)
    seen.append(_weak_seen(weak, weak.lose_power(images // 10, seed, place), asked))
    return seen


def _order_seen(run: Traced, tasks: int, asked: str) -> Seen:
    order = run.order
    return Seen(
        bar=ORDER,
        tried=f"{tasks} creates at {CONNECTIONS} connections under strace",
        seen=f"{len(order.synced)} on disk before their 201, {len(order.early)} after, "
        f"{len(order.unseen)} without a commit",
        held=run.accepted == tasks == len(order.synced),
        command=asked,
    )


def _power_seen(losses: list[Loss], run: Traced, images: int, asked: str) -> Seen:
    for loss in losses[:10]:
        sys.stderr.write(f"{loss}\n")
    lost = sum(len(loss.missing) for loss in losses)
    refused = sum(loss.refused is not None for loss in losses)
    return Seen(
        bar=POWER,
        tried=f"{images} images of {run.accepted} tasks with unsynced writes dropped or torn",
        seen=f"{lost} accepted tasks lost, {refused} images refused",
        held=not losses,
        command=asked,
    )


def _weak_seen(run: Traced, losses: list[Loss], asked: str) -> Seen:
    order = run.order
    return Seen(
        bar=WEAK_ORDER,
        tried=f"{run.accepted} creates with synchronous=NORMAL",
        seen=f"{len(order.early)} found to be told too early, {len(losses)} power losses found out",
        held=len(order.early) > run.accepted // 2 and bool(losses),
        command=asked,
    )
