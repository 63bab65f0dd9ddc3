"""The demo from its beginning to its end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Final

import attrs
import trio
from rich.console import Console

from engine import Status
from web.cli.watching import Subscription, cancelled_by_signals, follow
from web.receiver import Receiver, open_receiver

from .load import Load
from .plan import make_plan
from .progress import Display, Progress
from .report import Figures, print_report
from .server import DemoServer
from .verdict import Outcome, judge

RECONNECT_S: Final = 30.0
KILL_AT: Final = 0.3  # of the tasks have ended: in the middle of the load
EXIT_GOOD, EXIT_BAD, EXIT_INTERRUPTED = 0, 1, 130


@attrs.frozen(kw_only=True)
class DemoOptions:
    """What the demo is to do."""

    tasks: int = 400
    kill: bool = False
    keep: bool = False

    @property
    def spread_s(self) -> float:
        """How long tasks are created one by one: long enough to watch."""
        return min(4.0, self.tasks * 0.01)

    @property
    def limit_s(self) -> float:
        """When to stop waiting for tasks to end."""
        return 60.0 + self.tasks * 0.1


async def run_demo(options: DemoOptions, console: Console) -> int:
    """Run it; returns the exit status. Raises ``ServerFailed`` or ``RefusedError``, in groups."""
    place = Path(tempfile.mkdtemp(prefix="ringback-demo-"))
    server = DemoServer(place)
    code = EXIT_INTERRUPTED
    try:
        with cancelled_by_signals():
            async with open_receiver() as receiver:
                code = await _Demo(options, console, server, receiver).run()
    finally:
        with trio.CancelScope(shield=True):  # bounded by its own limit
            await server.stop()
        if options.keep:
            console.print(f"the database stays at {server.database}")
        else:
            shutil.rmtree(place, ignore_errors=True)
    return code


class _Demo:
    """One run: what its steps share."""

    def __init__(
        self, options: DemoOptions, console: Console, server: DemoServer, receiver: Receiver
    ) -> None:
        self.options, self.console, self.server, self.receiver = options, console, server, receiver
        self.plan = make_plan(options.tasks, receiver.url)
        self.progress = Progress(options.tasks, KILL_AT)
        self.display = Display(console, self.progress, lambda: receiver.in_flight)

    async def run(self) -> int:
        took_s = await self.server.start()
        self.display.say(f"server    {self.server.url}  (up in {took_s:.1f} s)")
        self.display.say(f"receiver  {self.receiver.url}  good, flaky, slow and broken endpoints")
        load = Load(self.server.url, self.plan)
        began = perf_counter()
        with trio.move_on_after(self.options.limit_s) as limit, self.display.running():
            await self._work(load)
        took_s = perf_counter() - began
        known_to_api = await self._account(load)
        exit_status = await self.server.stop()
        verdict = judge(
            [self._outcome(load, number) for number in load.records],
            known_to_api=known_to_api,
            gaps=self.progress.gaps,
        )
        problems = list(verdict.problems)
        if limit.cancelled_caught:
            problems.insert(0, f"not all tasks had ended after {self.options.limit_s:g} s")
        if exit_status != 0:
            problems.append(f"SIGTERM ended the server with status {exit_status}, not 0")
        figures = Figures(
            took_s=took_s,
            events=self.progress.events,
            peak_in_flight=self.receiver.peak_in_flight,
            batches_s=load.batches_s,
            repeated_requests=load.repeated,
        )
        print_report(self.console, verdict, figures, problems)
        return EXIT_BAD if problems else EXIT_GOOD

    async def _work(self, load: Load) -> None:
        """Create the tasks and follow them until all have ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.server.guard)
            nursery.start_soon(self._keep_showing)
            nursery.start_soon(load.create, self.options.spread_s)
            if self.options.kill:
                nursery.start_soon(self._kill_in_the_middle)
            await follow(
                self.server.url,
                Subscription(after=0),
                self.progress.take,
                note=self.display.say,
                reconnect_s=RECONNECT_S,
            )
            await load.created.wait()  # the last answers may still be on their way
            self.display.show()
            nursery.cancel_scope.cancel(reason="all tasks have ended")

    async def _keep_showing(self) -> None:
        while True:
            await trio.sleep(self.display.interval_s)
            self.display.show()

    async def _kill_in_the_middle(self) -> None:
        await self.progress.in_the_middle.wait()
        in_flight = self.receiver.in_flight
        await self.server.kill()
        self.display.say(f"SIGKILL with {in_flight} callbacks in flight")
        took_s = await self.server.start()
        self.display.say(f"started again on the same file, up in {took_s:.1f} s")

    async def _account(self, load: Load) -> int:
        with trio.fail_after(self.options.limit_s):
            known = await load.account()
            await load.find_lost_attempts(
                record
                for record in load.records.values()
                if record.found is not None
                and record.task_id is not None
                and (
                    len(self.receiver.calls(record.task_id)) != record.planned.kind.attempts
                    or record.found["attempt"] != record.planned.kind.attempts
                )
            )
        return known

    def _outcome(self, load: Load, number: int) -> Outcome:
        record = load.records[number]
        return Outcome(
            planned=record.planned,
            task_id=record.task_id,
            status=Status(record.found["status"]) if record.found is not None else None,
            sent_at=record.sent_at,
            create_s=record.create_s,
            ended_at=self.progress.ended_at.get(record.task_id or ""),
            calls=self.receiver.calls(record.task_id or ""),
            attempts=record.found["attempt"] if record.found is not None else 0,
            lost_attempts=record.lost_attempts if self.options.kill else 0,
        )
