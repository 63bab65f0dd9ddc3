"""The unversioned dialect: the same engine under an older spelling.

It shows ``Pending`` as ``Dequeued`` and ``Retrying`` as ``Retry``.
"""

from __future__ import annotations

from engine import Status, TaskSpec
from web.auth import Scope
from web.hops import HEADER as HOPS, hops_of
from web.paging import task_id_of
from web.router import Call, Reply, Router
from web.schemas import (
    UnversionedAccepted,
    UnversionedDequeued,
    UnversionedExecuted,
    UnversionedTask,
    UnversionedView,
)

router = Router("unversioned dialect", "/api")

_SPELLED = {Status.PENDING: "Dequeued", Status.RETRYING: "Retry"}


def _spelled(status: Status) -> str:
    return _SPELLED.get(status, status.value)


@router.add(
    "POST",
    "/tasks",
    "Create a task",
    body=UnversionedTask,
    headers=(HOPS,),
    answers={201: UnversionedAccepted},
    problems=(400, 406, 413, 415, 503, 507),
)
async def create(call: Call) -> Reply:
    given: UnversionedTask = call.body
    spec = TaskSpec(
        name="task",
        callback_url=given.callback_url,
        payload=given.task_data,
        priority=given.priority,
        hops=hops_of(call.headers),
    )
    task_id = (await call.engine.submit([spec], owned=True)).receipts[0].task_id
    body = UnversionedAccepted(task_id=task_id, status=Status.QUEUED.value)
    return Reply(status=201, body=body, headers={"Location": f"/api/tasks/{task_id}"})


@router.add(
    "GET",
    "/tasks/dequeue",
    "Lease the next waiting task",
    needs=Scope.WRITE,  # although it is a GET
    answers={200: UnversionedDequeued},
    problems=(404, 406, 503),
)
async def dequeue(call: Call) -> Reply:
    task = await call.engine.dequeue()
    body = UnversionedDequeued(
        task_id=task.id,
        task_data=task.spec.payload,
        callback_url=task.spec.callback_url,
        status=_spelled(task.status),
    )
    return Reply(body=body, headers={"Cache-Control": "no-store"})


@router.add(
    "POST",
    "/tasks/{id}/execute",
    "Call the task's callback and wait for the end",
    answers={200: UnversionedExecuted, 202: UnversionedExecuted},
    problems=(404, 406, 409, 503),
    waits=True,
)
async def execute(call: Call) -> Reply:
    task_id = task_id_of(call.path["id"])
    task = await call.engine.execute_and_wait(task_id, call.settings.wait_default_s)
    body = UnversionedExecuted(
        task_id=task.id,
        status=_spelled(task.status),
        result=task.result,
        error=task.result.error if task.result is not None else None,
    )
    ended = task.status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
    return Reply(status=200 if ended else 202, body=body)


@router.add(
    "GET",
    "/tasks/{id}",
    "A task",
    answers={200: UnversionedView},
    problems=(404, 406, 503),
)
async def get(call: Call) -> Reply:
    task = await call.engine.get(task_id_of(call.path["id"]))
    body = UnversionedView(
        task_id=task.id,
        status=_spelled(task.status),
        task_data=task.spec.payload,
        callback_url=task.spec.callback_url,
        created_at=task.created_at,
        updated_at=task.updated_at,
        result=task.result,
    )
    return Reply(body=body)
