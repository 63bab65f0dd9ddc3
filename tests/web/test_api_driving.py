"""Clients drive tasks: dequeue, execute, release, retry, change, cancel."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from engine import EngineConfig
from engine.core.outcome import Answer as CallbackAnswer
from tests.support.app import HOOK, NOBODY, V1, Answer, Api, open_api
from tests.support.fakes import Held, ScriptedNet

BROKEN = CallbackAnswer(status_code=500, body=b"broken")
ONCE = {"retryPolicy": {"maxAttempts": 1}}


@pytest.fixture
def net() -> ScriptedNet:
    return ScriptedNet()


@pytest.fixture
async def api(net: ScriptedNet) -> AsyncIterator[Api]:
    async with open_api(net=net) as opened:
        yield opened


def refused(answer: Answer, status: int, kind: str, current: str | None = None) -> list[str]:
    """Check a refusal; the events it says are allowed."""
    assert (answer.status, answer.kind) == (status, kind)
    if current is None:
        return []
    assert answer.json["currentStatus"] == current
    allowed: list[str] = answer.json["allowed"]
    return allowed


# -- dequeue ---------------------------------------------------------------------------------


async def test_dequeue_gives_the_next_task_for_a_time(api: Api, autojump_clock: MockClock) -> None:
    task_id = await api.create(payload={"n": 1})
    answer = await api.post(f"{V1}/tasks/dequeue")
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    shown = dict(answer.json)
    assert shown.pop("leaseExpiresAt") == "2026-01-02T03:09:05.678901Z"
    assert shown == {
        "taskId": task_id,
        "name": "invoice",
        "status": "Pending",
        "callbackUrl": HOOK,
        "payload": {"n": 1},
    }
    assert answer.headers["ETag"] == (await api.get(f"{V1}/tasks/{task_id}")).headers["ETag"]


async def test_dequeue_from_an_empty_queue_says_so(api: Api) -> None:
    await api.create(dispatch="auto", delaySeconds=100)  # not for clients
    await api.create(delaySeconds=100)  # not yet
    refused(await api.post(f"{V1}/tasks/dequeue"), 404, "queue-empty")


async def test_higher_priority_comes_first_then_the_older(api: Api) -> None:
    low = await api.create(priority=-5)
    first, second = await api.create(priority=5), await api.create(priority=5)
    middle = await api.create()
    order = [(await api.post(f"{V1}/tasks/dequeue")).json["taskId"] for _ in range(4)]
    assert order == [first, second, middle, low]


async def test_two_clients_never_get_the_same_task(api: Api) -> None:
    ids = {await api.create() for _ in range(20)}
    got: list[str] = []

    async def take() -> None:
        got.append((await api.post(f"{V1}/tasks/dequeue")).json["taskId"])

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(take)
    assert sorted(got) == sorted(ids)


async def test_a_client_that_prefers_to_wait_gets_the_task_that_comes(
    api: Api, autojump_clock: MockClock
) -> None:
    answers: list[Answer] = []

    async def take() -> None:
        answers.append(await api.post(f"{V1}/tasks/dequeue", Prefer="wait=10"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.sleep(3)
        task_id = await api.create()
    assert answers[0].json["taskId"] == task_id
    assert answers[0].headers["Preference-Applied"] == "wait=10"
    assert trio.current_time() < 4


async def test_a_client_waits_no_longer_than_it_prefers(
    api: Api, autojump_clock: MockClock
) -> None:
    refused(await api.post(f"{V1}/tasks/dequeue", Prefer="wait=10"), 404, "queue-empty")
    assert trio.current_time() == pytest.approx(10)


async def test_a_client_that_left_while_waiting_takes_no_task_with_it(
    api: Api, autojump_clock: MockClock
) -> None:
    with trio.move_on_after(1):
        await api.post(f"{V1}/tasks/dequeue", Prefer="wait=60")
    task_id = await api.create()
    assert (await api.post(f"{V1}/tasks/dequeue")).json["taskId"] == task_id


async def test_a_lease_that_ends_puts_the_task_back(api: Api, autojump_clock: MockClock) -> None:
    task_id = await api.create()
    await api.post(f"{V1}/tasks/dequeue", {"leaseSeconds": 2})
    await trio.sleep(1)
    assert await api.status(task_id) == "Pending"
    await trio.sleep(3)
    assert await api.status(task_id) == "Queued"
    assert (await api.post(f"{V1}/tasks/dequeue")).json["taskId"] == task_id


@pytest.mark.parametrize("path", ["/tasks/dequeue", f"/tasks/{NOBODY}/dequeue"])
async def test_a_bad_lease_is_named(api: Api, path: str) -> None:
    answer = await api.post(V1 + path, {"leaseSeconds": 0})
    assert answer.status == 400
    assert answer.pointers == ["/leaseSeconds"]


async def test_a_bad_preference_is_refused(api: Api, autojump_clock: MockClock) -> None:
    assert (await api.post(f"{V1}/tasks/dequeue", Prefer="wait=soon")).status == 400


async def test_a_task_can_be_dequeued_by_its_id(api: Api, autojump_clock: MockClock) -> None:
    await api.create(priority=100)
    task_id = await api.create(payload=[1])
    answer = await api.post(f"{V1}/tasks/{task_id.upper()}/dequeue", {"leaseSeconds": 60})
    assert answer.status == 200
    assert answer.json["taskId"] == task_id
    assert answer.json["payload"] == [1]
    assert answer.json["leaseExpiresAt"] == "2026-01-02T03:05:05.678901Z"


@pytest.mark.parametrize("task_id", [NOBODY, "nonsense"])
@pytest.mark.parametrize("action", ["dequeue", "execute", "retry", "release"])
async def test_an_unknown_task_cannot_be_driven(api: Api, action: str, task_id: str) -> None:
    refused(await api.post(f"{V1}/tasks/{task_id}/{action}"), 404, "task-not-found")


async def test_a_task_of_the_executors_is_not_for_clients(api: Api) -> None:
    task_id = await api.create(dispatch="auto", delaySeconds=60)
    answer = await api.post(f"{V1}/tasks/{task_id}/dequeue")
    refused(answer, 409, "not-takeable")
    assert "auto" in answer.json["detail"]


async def test_a_scheduled_task_cannot_be_dequeued_by_id(
    api: Api, autojump_clock: MockClock
) -> None:
    task_id = await api.create(delaySeconds=60)
    answer = await api.post(f"{V1}/tasks/{task_id}/dequeue")
    refused(answer, 409, "not-takeable")
    assert "2026-01-02T03:05:05.678901Z" in answer.json["detail"]


async def test_a_task_behind_another_of_its_key_cannot_be_dequeued(api: Api) -> None:
    first, second = await api.create(partitionKey="k"), await api.create(partitionKey="k")
    answer = await api.post(f"{V1}/tasks/{second}/dequeue")
    refused(answer, 409, "not-takeable")
    assert first in answer.json["detail"]


async def test_a_dequeued_task_cannot_be_dequeued_again(api: Api) -> None:
    task_id = await api.pending()
    allowed = refused(
        await api.post(f"{V1}/tasks/{task_id}/dequeue"), 409, "illegal-transition", "Pending"
    )
    assert {"execute", "release", "cancel"} <= set(allowed)


# -- execute ---------------------------------------------------------------------------------


async def test_execute_answers_with_the_end_of_the_task(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    net.script(HOOK, CallbackAnswer(status_code=201, body=b"made it"))
    task_id = await api.pending()
    answer = await api.post(f"{V1}/tasks/{task_id}/execute")
    assert answer.status == 200
    assert answer.json == {
        "taskId": task_id,
        "status": "Completed",
        "executedAt": "2026-01-02T03:04:05.678901Z",
        "callbackResult": {
            "statusCode": 201,
            "body": "made it",
            "truncated": False,
            "errorClass": None,
            "error": None,
        },
    }
    assert net.attempts(task_id) == [1]


async def test_execute_waits_through_the_retries(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    net.script(HOOK, BROKEN, BROKEN, CallbackAnswer(status_code=200, body=b"at last"))
    task_id = await api.pending()
    answer = await api.post(f"{V1}/tasks/{task_id}/execute")
    assert (answer.status, answer.json["status"]) == (200, "Completed")
    assert net.attempts(task_id) == [1, 2, 3]


async def test_execute_of_a_task_that_fails_for_good_says_why(api: Api, net: ScriptedNet) -> None:
    net.script(HOOK, CallbackAnswer(status_code=410, body=b"gone"))
    task_id = await api.pending()
    answer = await api.post(f"{V1}/tasks/{task_id}/execute")
    assert (answer.status, answer.json["status"]) == (200, "Failed")
    assert answer.json["callbackResult"]["statusCode"] == 410
    assert answer.json["callbackResult"]["errorClass"] == "http_status"
    assert net.attempts(task_id) == [1]


@pytest.mark.parametrize(
    ("preference", "after"), [("respond-async", 0), ("wait=1", 1), ("respond-async, wait=2", 2)]
)
async def test_execute_does_not_wait_longer_than_preferred(
    api: Api, net: ScriptedNet, preference: str, after: float, autojump_clock: MockClock
) -> None:
    net.script(HOOK, Held())
    task_id = await api.pending()
    answer = await api.post(f"{V1}/tasks/{task_id}/execute", Prefer=preference)
    assert answer.status == 202
    assert trio.current_time() == pytest.approx(after)
    assert answer.json["status"] == ("Processing" if after else "Pending")
    assert answer.headers["Location"] == f"{V1}/tasks/{task_id}"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Preference-Applied"] in preference
    net.let_go()
    assert (await api.until(task_id, "Completed"))["attempt"] == 1


async def test_execute_waits_thirty_seconds_by_default(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    net.script(HOOK, Held())
    task_id = await api.pending(timeoutSeconds=100)
    answer = await api.post(f"{V1}/tasks/{task_id}/execute")
    assert (answer.status, answer.json["status"]) == (202, "Processing")
    assert "Preference-Applied" not in answer.headers
    assert trio.current_time() == pytest.approx(30)


async def test_a_second_execute_is_refused_while_the_first_runs(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    net.script(HOOK, Held())
    task_id = await api.pending()
    await api.post(f"{V1}/tasks/{task_id}/execute", Prefer="respond-async")
    second = await api.post(f"{V1}/tasks/{task_id}/execute")
    assert "execute" not in refused(second, 409, "illegal-transition", second.json["currentStatus"])
    await net.wait_for_calls(1)
    third = await api.post(f"{V1}/tasks/{task_id}/execute")
    refused(third, 409, "illegal-transition", "Processing")
    net.let_go()
    await api.until(task_id, "Completed")
    assert net.attempts(task_id) == [1]


async def test_two_executes_at_once_call_the_callback_once(api: Api, net: ScriptedNet) -> None:
    task_id = await api.pending()
    statuses: list[int] = []

    async def execute() -> None:
        statuses.append((await api.post(f"{V1}/tasks/{task_id}/execute")).status)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(execute)
    assert sorted(statuses) == [200, 409, 409, 409, 409]
    assert net.attempts(task_id) == [1]


async def test_only_a_dequeued_task_can_be_executed(api: Api) -> None:
    task_id = await api.create()
    allowed = refused(
        await api.post(f"{V1}/tasks/{task_id}/execute"), 409, "illegal-transition", "Queued"
    )
    assert "dequeue" in allowed


async def test_a_finished_task_cannot_be_executed(api: Api) -> None:
    task_id = await api.executed()
    answer = await api.post(f"{V1}/tasks/{task_id}/execute")
    assert refused(answer, 409, "illegal-transition", "Completed") == []


async def test_execute_is_answered_when_the_engine_stops_meanwhile(
    autojump_clock: MockClock, net: ScriptedNet
) -> None:
    net.script(HOOK, Held())
    answers: list[Answer] = []
    async with open_api(net=net, config=EngineConfig(executors=2, grace_s=5)) as api:
        task_id = await api.pending(timeoutSeconds=100)

        async def execute() -> None:
            answers.append(await api.post(f"{V1}/tasks/{task_id}/execute"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(execute)
            await net.wait_for_calls(1)
            api.engine.stop()
    assert answers[0].status == 202
    assert answers[0].json["status"] in ("Processing", "Retrying")


# -- retry and release -----------------------------------------------------------------------


async def test_a_failed_task_gets_another_round(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    net.script(HOOK, BROKEN, CallbackAnswer(status_code=200))
    task_id = await api.executed(**ONCE)
    assert await api.status(task_id) == "Failed"
    answer = await api.post(f"{V1}/tasks/{task_id}/retry")
    assert (answer.status, answer.json["status"]) == (202, "Retrying")
    assert answer.headers["Location"] == f"{V1}/tasks/{task_id}"
    task = await api.until(task_id, "Completed")
    assert task["attempt"] == 2


@pytest.mark.parametrize("state", ["queued", "pending", "completed"])
async def test_only_a_failed_task_can_be_retried(api: Api, state: str) -> None:
    make = {"queued": api.create, "pending": api.pending, "completed": api.executed}
    task_id = await make[state]()
    answer = await api.post(f"{V1}/tasks/{task_id}/retry")
    refused(answer, 409, "illegal-transition", state.capitalize())


async def test_a_released_task_waits_again(api: Api) -> None:
    task_id = await api.pending()
    answer = await api.post(f"{V1}/tasks/{task_id}/release")
    assert (answer.status, answer.json["status"]) == (200, "Queued")
    assert (await api.post(f"{V1}/tasks/dequeue")).json["taskId"] == task_id


async def test_only_a_dequeued_task_can_be_released(api: Api) -> None:
    task_id = await api.create()
    answer = await api.post(f"{V1}/tasks/{task_id}/release")
    refused(answer, 409, "illegal-transition", "Queued")


# -- change ----------------------------------------------------------------------------------


async def test_a_waiting_task_can_be_changed_and_the_rest_stays(api: Api) -> None:
    task_id = await api.create(description="old", payload=1, metadata={"a": "b"})
    changes = {
        "name": "new name",
        "description": None,
        "payload": {"n": None},
        "priority": 9,
        "callbackUrl": "http://elsewhere.test/",
        "runAt": "2026-01-05T00:00:00.000000Z",
    }
    answer = await api.patch(f"{V1}/tasks/{task_id}", changes)
    assert answer.status == 200
    assert {name: answer.json[name] for name in changes} == changes
    assert answer.json["metadata"] == {"a": "b"}
    assert answer.headers["ETag"] == f'"{answer.json["version"]}"'
    assert await api.task(task_id) == answer.json


async def test_a_changed_priority_moves_the_task_in_the_queue(api: Api) -> None:
    await api.create()
    task_id = await api.create()
    await api.patch(f"{V1}/tasks/{task_id}", {"priority": 50})
    assert (await api.post(f"{V1}/tasks/dequeue")).json["taskId"] == task_id


async def test_a_task_that_is_put_off_and_back_can_be_dequeued_again(api: Api) -> None:
    task_id = await api.create()
    await api.patch(f"{V1}/tasks/{task_id}", {"runAt": "2026-02-01T00:00:00Z"})
    refused(await api.post(f"{V1}/tasks/dequeue"), 404, "queue-empty")
    await api.patch(f"{V1}/tasks/{task_id}", {"runAt": None})
    assert (await api.post(f"{V1}/tasks/dequeue")).json["taskId"] == task_id


async def test_a_dequeued_task_can_still_be_changed(api: Api, net: ScriptedNet) -> None:
    task_id = await api.pending()
    await api.patch(f"{V1}/tasks/{task_id}", {"callbackUrl": "http://elsewhere.test/"})
    await api.post(f"{V1}/tasks/{task_id}/execute")
    assert [request.url for request in net.seen] == ["http://elsewhere.test/"]


async def test_a_change_happens_only_to_the_version_the_client_read(api: Api) -> None:
    task_id = await api.create()
    tag = (await api.get(f"{V1}/tasks/{task_id}")).headers["ETag"]
    first = await api.patch(f"{V1}/tasks/{task_id}", {"priority": 1}, If_Match=tag)
    assert first.status == 200
    second = await api.patch(f"{V1}/tasks/{task_id}", {"priority": 2}, If_Match=tag)
    refused(second, 412, "version-mismatch")
    assert f'"{second.json["currentVersion"]}"' == first.headers["ETag"]
    assert (await api.task(task_id))["priority"] == 1
    anyway = await api.patch(f"{V1}/tasks/{task_id}", {"priority": 3}, If_Match="*")
    assert anyway.status == 200


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, []),
        ({"colour": "red"}, ["/colour"]),
        ({"status": "Completed"}, ["/status"]),
        ({"name": None}, ["/name"]),
        ({"priority": None}, ["/priority"]),
        ({"callbackUrl": "nowhere"}, ["/callbackUrl"]),
    ],
)
async def test_a_bad_change_is_refused_and_changes_nothing(
    api: Api, body: dict[str, object], pointers: list[str]
) -> None:
    task_id = await api.create()
    before = await api.task(task_id)
    answer = await api.patch(f"{V1}/tasks/{task_id}", body)
    assert (answer.status, answer.pointers) == (400, pointers)
    assert await api.task(task_id) == before


async def test_a_bad_if_match_is_refused(api: Api) -> None:
    task_id = await api.create()
    answer = await api.patch(f"{V1}/tasks/{task_id}", {"priority": 1}, If_Match='"abc"')
    assert answer.status == 400


async def test_a_finished_task_cannot_be_changed(api: Api) -> None:
    task_id = await api.executed()
    answer = await api.patch(f"{V1}/tasks/{task_id}", {"priority": 1})
    refused(answer, 409, "illegal-transition", "Completed")


async def test_an_unknown_task_cannot_be_changed_or_cancelled(api: Api) -> None:
    refused(await api.patch(f"{V1}/tasks/{NOBODY}", {"priority": 1}), 404, "task-not-found")
    refused(await api.delete(f"{V1}/tasks/{NOBODY}"), 404, "task-not-found")


# -- cancel ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["queued", "pending", "scheduled"])
async def test_a_task_that_has_not_begun_can_be_cancelled(
    api: Api, net: ScriptedNet, state: str
) -> None:
    task_id = await (api.pending() if state == "pending" else api.create())
    if state == "scheduled":
        await api.patch(f"{V1}/tasks/{task_id}", {"runAt": "2026-02-01T00:00:00Z"})
    answer = await api.delete(f"{V1}/tasks/{task_id}")
    assert (answer.status, answer.body) == (204, b"")
    assert await api.status(task_id) == "Cancelled"
    refused(await api.post(f"{V1}/tasks/dequeue"), 404, "queue-empty")
    assert net.seen == []


async def test_a_task_between_two_attempts_can_be_cancelled(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    net.script(HOOK, BROKEN)
    policy = {"initialIntervalSeconds": 100, "maxIntervalSeconds": 100, "jitter": False}
    task_id = await api.pending(retryPolicy=policy)
    await api.post(f"{V1}/tasks/{task_id}/execute", Prefer="wait=1")
    assert await api.status(task_id) == "Retrying"
    assert (await api.delete(f"{V1}/tasks/{task_id}")).status == 204
    await trio.sleep(200)
    assert net.attempts(task_id) == [1]


async def test_a_running_task_is_cancelled_only_if_asked_to_cut_the_call(
    api: Api, net: ScriptedNet
) -> None:
    net.script(HOOK, Held())
    task_id = await api.pending()
    await api.post(f"{V1}/tasks/{task_id}/execute", Prefer="respond-async")
    await net.wait_for_calls(1)
    allowed = refused(
        await api.delete(f"{V1}/tasks/{task_id}"), 409, "illegal-transition", "Processing"
    )
    assert allowed == ["cancel in flight"]
    assert net.cut == []
    assert (await api.delete(f"{V1}/tasks/{task_id}?inFlight=true")).status == 204
    await trio.testing.wait_all_tasks_blocked()
    assert net.cut == net.seen
    assert net.in_flight == 0
    assert await api.status(task_id) == "Cancelled"
    log = (await api.get(f"{V1}/tasks/{task_id}/attempts")).json["attempts"]
    assert [one["result"]["errorClass"] for one in log] == ["cancelled"]


async def test_a_finished_task_cannot_be_cancelled(api: Api) -> None:
    task_id = await api.executed()
    answer = await api.delete(f"{V1}/tasks/{task_id}?inFlight=true")
    assert refused(answer, 409, "illegal-transition", "Completed") == []


async def test_a_task_is_cancelled_only_in_the_version_the_client_read(api: Api) -> None:
    task_id = await api.create()
    tag = (await api.get(f"{V1}/tasks/{task_id}")).headers["ETag"]
    await api.patch(f"{V1}/tasks/{task_id}", {"priority": 1})
    refused(await api.delete(f"{V1}/tasks/{task_id}", If_Match=tag), 412, "version-mismatch")
    assert await api.status(task_id) == "Queued"


@pytest.mark.parametrize("query", ["inFlight=maybe", "force=true", "inFlight=true&inFlight=true"])
async def test_a_bad_way_to_cancel_is_named(api: Api, query: str) -> None:
    task_id = await api.create()
    answer = await api.delete(f"{V1}/tasks/{task_id}?{query}")
    assert answer.status == 400
    assert answer.pointers == ["/" + query.partition("=")[0]]
    assert await api.status(task_id) == "Queued"


async def test_a_scheduled_task_comes_when_it_is_due(api: Api, autojump_clock: MockClock) -> None:
    task_id = await api.create(delaySeconds=5)
    answer = await api.post(f"{V1}/tasks/dequeue", Prefer="wait=60")
    assert answer.json["taskId"] == task_id
    assert trio.current_time() == pytest.approx(5, abs=0.1)
