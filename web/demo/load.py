"""Creates the planned tasks as clients do, and asks in the end for every single one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Any, Final

import attrs
import httpx
import trio

from engine import ErrorClass

from .plan import BY_HAND, CANCELLED, Plan, Planned

REQUEST_S: Final = 10.0
PAUSE_S: Final = 0.1
READERS: Final = 8
_V1: Final = "/api/v1/tasks"

Json = dict[str, Any]


@attrs.define
class Record:
    """One task from the outside. Times are ``time.perf_counter``."""

    planned: Planned
    sent_at: float = 0.0
    task_id: str | None = None  # None until it is accepted
    create_s: float | None = None  # None if it came in a batch
    found: Json | None = None  # what the API says of it in the end
    lost_attempts: int = 0  # attempts in flight when the server was killed


class RefusedError(Exception):
    """The server refused something that a demo asks for."""


class Load:
    """All that the demo asks of the server. Repeats what a killed server has left unanswered."""

    def __init__(self, url: str, plan: Plan) -> None:
        self._url, self._plan = url, plan
        self.records = {planned.number: Record(planned) for planned in plan.tasks}
        self.batches_s: list[float] = []
        self.repeated = 0
        self.created = trio.Event()

    def __repr__(self) -> str:
        return f"<Load {self.accepted} of {len(self.records)} accepted, {self.repeated} repeated>"

    @property
    def accepted(self) -> int:
        return sum(record.task_id is not None for record in self.records.values())

    async def create(self, spread_s: float) -> None:
        """Create everything: the lines side by side, spread over so many seconds."""
        async with trio.open_nursery() as nursery:
            for line in self._plan.lines:
                nursery.start_soon(self._create_line, line, spread_s)
            nursery.start_soon(self._create_batches)
        self.created.set()

    async def account(self) -> int:
        """Ask for every task, and for the attempts of those that took more than planned.

        Returns how many tasks the server knows in all.
        """
        records = list(self.records.values())
        async with trio.open_nursery() as nursery:
            for start in range(READERS):
                nursery.start_soon(self._look_up, records[start::READERS])
        async with self._client() as client:
            page = (await self._ask(client, "GET", "?limit=1")).json()
        return int(page["totalCount"])

    async def find_lost_attempts(self, suspects: Iterable[Record]) -> None:
        """Note how many attempts of these tasks a killed server could not finish."""
        async with self._client() as client:
            for record in suspects:
                answer = await self._ask(client, "GET", f"/{record.task_id}/attempts")
                record.lost_attempts = sum(
                    attempt["result"]["errorClass"] == ErrorClass.LOST
                    for attempt in answer.json()["attempts"]
                )

    # -- each over a connection of its own -----------------------------------------------------

    async def _create_line(self, line: Sequence[Planned], spread_s: float) -> None:
        began = trio.current_time()
        async with self._client() as client:
            for place, planned in enumerate(line):
                await trio.sleep_until(began + spread_s * place / len(line))
                record = self.records[planned.number]
                record.sent_at = perf_counter()
                answer = await self._ask(client, "POST", "", planned.body, key=planned.key)
                record.create_s = perf_counter() - record.sent_at
                record.task_id = answer.json()["taskId"]
                if planned.kind is CANCELLED:
                    await self._ask(client, "DELETE", f"/{record.task_id}", also=(409,))
                elif planned.kind is BY_HAND:
                    await self._drive_by_hand(client, record)

    async def _drive_by_hand(self, client: httpx.AsyncClient, record: Record) -> None:
        """As a client that wants to say when. After a kill both may have happened already."""
        await self._ask(client, "POST", "/dequeue", prefer="wait=5", also=(404,))
        path = f"/{record.task_id}/execute"
        await self._ask(client, "POST", path, prefer="wait=5", also=(409,))

    async def _create_batches(self) -> None:
        async with self._client() as client:
            for number, batch in enumerate(self._plan.batches):
                sent_at = perf_counter()
                for planned in batch:
                    self.records[planned.number].sent_at = sent_at
                body = {"tasks": [planned.body for planned in batch]}
                key = f"demo-batch-{number}"
                accepted = (await self._ask(client, "POST", "/batch", body, key=key)).json()
                self.batches_s.append(perf_counter() - sent_at)
                for planned, task in zip(batch, accepted["tasks"], strict=True):
                    self.records[planned.number].task_id = task["taskId"]

    async def _look_up(self, records: Sequence[Record]) -> None:
        async with self._client() as client:
            for record in records:
                if record.task_id is None:
                    continue
                answer = await self._ask(client, "GET", f"/{record.task_id}", also=(404,))
                record.found = answer.json() if answer.is_success else None

    def _client(self) -> httpx.AsyncClient:
        timeout = httpx.Timeout(REQUEST_S)
        return httpx.AsyncClient(base_url=self._url, timeout=timeout, trust_env=False)

    async def _ask(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        key: str | None = None,
        prefer: str | None = None,
        also: Sequence[int] = (),
    ) -> httpx.Response:
        """One request, repeated while there is no answer; whoever calls sets a limit to that.

        ``also``: statuses that are as good as success.
        """
        headers = {"Idempotency-Key": key, "Prefer": prefer}
        sent = {name: value for name, value in headers.items() if value is not None}
        while True:
            try:
                answer = await client.request(method, _V1 + path, json=body, headers=sent)
            except httpx.TransportError:
                await trio.lowlevel.checkpoint()
                answer = None
            if answer is not None and (answer.is_success or answer.status_code in also):
                return answer
            if answer is not None and answer.status_code != 503:
                raise RefusedError(f"{method} {path}: {answer.status_code} {answer.text}")
            self.repeated += 1
            await trio.sleep(PAUSE_S)
