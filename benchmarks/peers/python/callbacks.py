"""The callback that workers on asyncio make, over one client's keep-alive connections."""

from __future__ import annotations

from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector

CONCURRENCY = 100
ATTEMPTS = 3


def client() -> ClientSession:
    return ClientSession(connector=TCPConnector(limit=CONCURRENCY), timeout=ClientTimeout(total=30))


async def call(session: ClientSession, task_id: str, task: dict[str, Any]) -> None:
    """Raises aiohttp's ClientError unless the answer is 2xx."""
    body = {"taskId": task_id, "name": task["name"], "payload": task["payload"]}
    headers = {"webhook-id": task_id}
    async with session.post(task["callbackUrl"], json=body, headers=headers) as answer:
        answer.raise_for_status()
        await answer.read()
