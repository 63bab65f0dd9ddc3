"""Tasks: create, drive by hand, look at, change, cancel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated

import attrs

from engine import Created, IdempotencyKey, Kept, Status, Task, TaskSpec
from engine.core.lifecycle import ENDED
from engine.core.rules import Path, items
from engine.errors import InvalidTask
from web.hops import HEADER as HOPS, hops_of
from web.naming import camel
from web.paging import if_match, page_of, task_id_of
from web.prefer import wait_s
from web.problems import bad_request, invalid
from web.router import Call, Reply, Router
from web.schemas import (
    AttemptList,
    BatchAccepted,
    CancelQuery,
    DequeueOptions,
    EventList,
    ExplanationView,
    ListQuery,
    TaskAccepted,
    TaskDequeued,
    TaskPage,
    TaskPatch,
    TaskState,
    TaskView,
)
from web.views import event_view, state_view, task_view

V1 = "/api/v1"
router = Router("tasks", V1)

_BODY_PROBLEMS = (400, 406, 413, 415)


@attrs.frozen(kw_only=True)
class Batch:
    """Tasks to create together: all or none."""

    tasks: Annotated[list[TaskSpec], items(1)]


@router.add(
    "POST",
    "/tasks",
    "Create a task",
    body=TaskSpec,
    headers=("Idempotency-Key", HOPS),
    answers={201: TaskAccepted},
    problems=(*_BODY_PROBLEMS, 409, 422, 503, 507),
)
async def create(call: Call) -> Reply:
    created = await _submit(call, [call.body], lambda _: ())
    accepted = _accepted(created)[0]
    headers = {"Location": f"{V1}/tasks/{accepted.task_id}", **_replayed(created)}
    return Reply(status=201, body=accepted, headers=headers)


@router.add(
    "POST",
    "/tasks/batch",
    "Create many tasks, all or none",
    body=Batch,
    large_body=True,
    headers=("Idempotency-Key", HOPS),
    answers={201: BatchAccepted},
    problems=(*_BODY_PROBLEMS, 409, 422, 503, 507),
)
async def create_batch(call: Call) -> Reply:
    count, most = len(call.body.tasks), call.settings.batch_tasks_max
    if count > most:
        raise invalid([("/tasks", f"must have at most {most} tasks, not {count}")])
    created = await _submit(call, call.body.tasks, lambda index: ("tasks", index))
    return Reply(
        status=201, body=BatchAccepted(tasks=_accepted(created)), headers=_replayed(created)
    )


async def _submit(
    call: Call, specs: Sequence[TaskSpec], place: Callable[[str | int], Path]
) -> Created:
    """Submit; ``place`` says where in the body the task of an index stands."""
    if hops := hops_of(call.headers):
        specs = [attrs.evolve(spec, hops=hops) for spec in specs]
    try:
        return await call.engine.submit(specs, key=_idempotency_key(call), owned=True)
    except InvalidTask as error:
        raise InvalidTask(
            [((*place(index), *path), detail) for (index, *path), detail in error.problems]
        ) from None


def _accepted(created: Created) -> list[TaskAccepted]:
    return [
        TaskAccepted(task_id=receipt.task_id, status=Status.QUEUED, created_at=receipt.created_at)
        for receipt in created.receipts
    ]


def _replayed(created: Created) -> dict[str, str]:
    return {"Idempotency-Replayed": "true"} if created.replayed else {}


def _idempotency_key(call: Call) -> IdempotencyKey | None:
    key = call.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
        raise bad_request("Idempotency-Key must be 1 to 255 visible ASCII characters")
    # A client cannot meet another one's keys, as long as the two have API keys.
    scope = f"{call.key_id} {call.url}\n{key}" if call.key_id else f"{call.url}\n{key}"
    return IdempotencyKey(
        hash=hashlib.sha256(scope.encode()).hexdigest(),
        fingerprint=hashlib.sha256(call.raw_body).hexdigest(),
    )


@router.add(
    "POST",
    "/tasks/dequeue",
    "Lease the next waiting task",
    body=DequeueOptions,
    body_required=False,
    headers=("Prefer",),
    answers={200: TaskDequeued},
    problems=(*_BODY_PROBLEMS, 404, 503),
)
async def dequeue(call: Call) -> Reply:
    seconds, applied = wait_s(call.headers.get("Prefer"), 0.0, call.settings.wait_max_s)
    task = await call.engine.dequeue(wait_s=seconds, lease_s=_lease_s(call))
    headers = {"Preference-Applied": applied} if applied else {}
    return _dequeued(task, headers)


@router.add(
    "POST",
    "/tasks/{id}/dequeue",
    "Lease this task",
    body=DequeueOptions,
    body_required=False,
    answers={200: TaskDequeued},
    problems=(*_BODY_PROBLEMS, 404, 409, 503),
)
async def dequeue_task(call: Call) -> Reply:
    task = await call.engine.dequeue_task(task_id_of(call.path["id"]), lease_s=_lease_s(call))
    return _dequeued(task, {})


def _lease_s(call: Call) -> float | None:
    return call.body.lease_s if call.body is not None else None


def _dequeued(task: Task, headers: dict[str, str]) -> Reply:
    body = TaskDequeued(
        task_id=task.id,
        name=task.spec.name,
        status=task.status,
        callback_url=task.spec.callback_url,
        payload=task.spec.payload,
        lease_expires_at=task.expires_at,
    )
    return Reply(body=body, headers={"ETag": etag(task), "Cache-Control": "no-store", **headers})


@router.add(
    "POST",
    "/tasks/{id}/execute",
    "Call the task's callback",
    headers=("Prefer",),
    answers={200: TaskState, 202: TaskState},
    problems=(400, 404, 406, 409, 503),
    waits=True,
)
async def execute(call: Call) -> Reply:
    task_id = task_id_of(call.path["id"])
    default = call.settings.wait_default_s
    seconds, applied = wait_s(call.headers.get("Prefer"), default, call.settings.wait_max_s)
    if seconds > 0:
        task = await call.engine.execute_and_wait(task_id, seconds)
    else:
        task = await call.engine.execute(task_id)
    headers = {"ETag": etag(task)}
    if applied:
        headers["Preference-Applied"] = applied
    if task.status in ENDED:
        return Reply(body=state_view(task), headers=headers)
    headers |= {"Location": f"{V1}/tasks/{task_id}", "Retry-After": "1"}
    return Reply(status=202, body=state_view(task), headers=headers)


@router.add(
    "POST",
    "/tasks/{id}/retry",
    "Give a failed task another round",
    answers={202: TaskState},
    problems=(404, 406, 409, 503),
)
async def retry(call: Call) -> Reply:
    task = await call.engine.retry(task_id_of(call.path["id"]))
    headers = {"Location": f"{V1}/tasks/{task.id}", "ETag": etag(task)}
    return Reply(status=202, body=state_view(task), headers=headers)


@router.add(
    "POST",
    "/tasks/{id}/release",
    "Give a dequeued task back to the queue",
    answers={200: TaskState},
    problems=(404, 406, 409, 503),
)
async def release(call: Call) -> Reply:
    task = await call.engine.release(task_id_of(call.path["id"]))
    return Reply(body=state_view(task), headers={"ETag": etag(task)})


@router.add(
    "GET",
    "/tasks",
    "List tasks, newest first",
    query=ListQuery,
    answers={200: TaskPage},
    problems=(400, 406, 503),
)
async def list_tasks(call: Call) -> Reply:
    return await page_of(
        call,
        Kept.ANYWHERE,
        path=f"{V1}/tasks",
        view=task_view,
        page_type=TaskPage,
    )


@router.add(
    "GET",
    "/tasks/{id}",
    "Everything known of a task",
    answers={200: TaskView},
    problems=(404, 406, 503),
)
async def get(call: Call) -> Reply:
    task = await call.engine.get(task_id_of(call.path["id"]))
    return Reply(body=task_view(task), headers={"ETag": etag(task)})


@router.add(
    "PATCH",
    "/tasks/{id}",
    "Change a task that has not begun",
    body=TaskPatch,
    headers=("If-Match",),
    answers={200: TaskView},
    problems=(*_BODY_PROBLEMS, 404, 409, 412, 503),
)
async def update(call: Call) -> Reply:
    fields = {f.name for f in attrs.fields(TaskPatch)}
    changes = {name: getattr(call.body, name) for name in fields if camel(name) in call.given}
    if not changes:
        raise bad_request("the body changes nothing: give at least one field")
    version = if_match(call.headers.get("If-Match"))
    task = await call.engine.update(task_id_of(call.path["id"]), changes, if_version=version)
    return Reply(body=task_view(task), headers={"ETag": etag(task)})


@router.add(
    "DELETE",
    "/tasks/{id}",
    "Cancel a task",
    query=CancelQuery,
    headers=("If-Match",),
    answers={204: None},
    problems=(400, 404, 406, 409, 412, 503),
)
async def cancel(call: Call) -> Reply:
    await call.engine.cancel(
        task_id_of(call.path["id"]),
        in_flight=call.query.in_flight,
        if_version=if_match(call.headers.get("If-Match")),
    )
    return Reply(status=204)


@router.add(
    "GET",
    "/tasks/{id}/attempts",
    "The attempts of a task",
    answers={200: AttemptList},
    problems=(404, 406, 503),
)
async def attempts(call: Call) -> Reply:
    return Reply(body=AttemptList(attempts=await call.engine.attempts(task_id_of(call.path["id"]))))


@router.add(
    "GET",
    "/tasks/{id}/events",
    "The history of a task",
    answers={200: EventList},
    problems=(404, 406, 503),
)
async def events(call: Call) -> Reply:
    found = await call.engine.task_events(task_id_of(call.path["id"]))
    return Reply(body=EventList(events=[event_view(event) for event in found]))


@router.add(
    "GET",
    "/tasks/{id}/explain",
    "Why a task is not running",
    answers={200: ExplanationView},
    problems=(404, 406, 503),
)
async def explain(call: Call) -> Reply:
    task_id = task_id_of(call.path["id"])
    task = await call.engine.get(task_id)
    why = await call.engine.explain(task_id)
    return Reply(
        body=ExplanationView(
            task_id=task_id,
            status=task.status,
            cause=why.cause,
            sentence=why.sentence,
            facts=dict(why.facts),
        )
    )


def etag(task: Task) -> str:
    """The task's version as a strong entity tag."""
    return f'"{task.version}"'
