"""Finished tasks: the archive, and dead letters that can be redriven."""

from __future__ import annotations

from engine import Kept, Status, TaskQuery
from engine.errors import IllegalTransition, TaskNotFound
from web.auth import Scope
from web.paging import page_of, task_id_of
from web.problems import invalid
from web.router import Call, Reply, Router
from web.schemas import ArchivedTask, ArchivePage, ListQuery, RedriveFilter, Redriven, TaskPage
from web.views import archived_view, task_view

V1 = "/api/v1"
router = Router("finished tasks", V1)


@router.add(
    "GET",
    "/archive",
    "List finished tasks, newest first",
    query=ListQuery,
    answers={200: ArchivePage},
    problems=(400, 406, 503),
)
async def archive(call: Call) -> Reply:
    return await page_of(
        call,
        Kept.ARCHIVE,
        path=f"{V1}/archive",
        view=archived_view,
        page_type=ArchivePage,
    )


@router.add(
    "GET",
    "/archive/{id}",
    "A finished task",
    answers={200: ArchivedTask},
    problems=(404, 406, 503),
)
async def archived(call: Call) -> Reply:
    task = await call.engine.get(task_id_of(call.path["id"]))
    if task.archived_at is None:
        raise TaskNotFound(task.id)
    return Reply(body=archived_view(task))


@router.add(
    "GET",
    "/dead-letters",
    "List failed tasks, newest first",
    query=ListQuery,
    answers={200: TaskPage},
    problems=(400, 406, 503),
)
async def dead_letters(call: Call) -> Reply:
    if call.query.status not in (None, Status.FAILED):
        raise invalid([("/status", f"must be {Status.FAILED} or left out: no other task is here")])
    return await page_of(
        call,
        Kept.LIVE,
        path=f"{V1}/dead-letters",
        view=task_view,
        page_type=TaskPage,
        statuses=frozenset({Status.FAILED}),
    )


@router.add(
    "POST",
    "/dead-letters/redrive",
    "Give failed tasks another round: those named, or the newest that match",
    needs=Scope.ADMIN,  # with a filter, it may mean everybody's tasks
    body=RedriveFilter,
    body_required=False,
    answers={202: Redriven},
    problems=(400, 404, 406, 409, 413, 415, 503),
)
async def redrive(call: Call) -> Reply:
    wanted: RedriveFilter = call.body or RedriveFilter()
    query = TaskQuery(
        task_ids=frozenset(task_id_of(text) for text in wanted.task_ids),
        names=frozenset({wanted.name}) if wanted.name is not None else frozenset(),
        priority=wanted.priority,
    )
    redriven = await call.engine.redrive(query, len(query.task_ids) or wanted.limit)
    if len(wanted.task_ids) == 1 and not redriven:
        task = await call.engine.get(task_id_of(wanted.task_ids[0]))
        raise IllegalTransition(
            task.id, task.status, "retry", ["only a Failed task can be redriven"]
        )
    return Reply(status=202, body=Redriven(redriven=len(redriven), task_ids=redriven))
