"""Looking at tasks: one, lists, history, the archive, dead letters, figures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import trio
from trio.testing import MockClock

from engine import EngineConfig
from engine.core.outcome import Answer as CallbackAnswer
from tests.support.app import HOOK, NOBODY, V1, Api, open_api
from tests.support.fakes import Held, ScriptedNet

BAD_HOOK = "http://receiver.test/bad"
BROKEN = CallbackAnswer(status_code=500, body=b"broken")
ONCE = {"retryPolicy": {"maxAttempts": 1}}


@pytest.fixture
def net() -> ScriptedNet:
    net = ScriptedNet()
    net.script(BAD_HOOK, BROKEN)
    return net


@pytest.fixture
async def api(net: ScriptedNet) -> AsyncIterator[Api]:
    async with open_api(net=net) as opened:
        yield opened


async def failed(api: Api, **fields: Any) -> str:
    """A task that has failed; its id."""
    task_id = await api.executed(callbackUrl=BAD_HOOK, **{**ONCE, **fields})
    assert await api.status(task_id) == "Failed"
    return task_id


# -- one task --------------------------------------------------------------------------------


async def test_the_etag_is_the_version_and_changes_with_it(api: Api) -> None:
    task_id = await api.create()
    first = await api.get(f"{V1}/tasks/{task_id}")
    assert first.headers["ETag"] == f'"{first.json["version"]}"'
    await api.post(f"{V1}/tasks/{task_id}/dequeue")
    second = await api.get(f"{V1}/tasks/{task_id}")
    assert second.json["version"] > first.json["version"]
    assert second.headers["ETag"] == f'"{second.json["version"]}"'


async def test_an_archived_task_is_found_like_any_other(
    api: Api, autojump_clock: MockClock
) -> None:
    task = await api.task(await api.executed(payload={"n": 1}))
    assert task["status"] == "Completed"
    assert task["payload"] == {"n": 1}
    assert task["archivedAt"] == task["completedAt"] == "2026-01-02T03:04:05.678901Z"
    assert task["callbackResult"]["body"] == '{"ok":true}'


async def test_a_task_that_waits_for_its_next_attempt_says_when(
    api: Api, autojump_clock: MockClock
) -> None:
    policy = {"initialIntervalSeconds": 60, "maxIntervalSeconds": 60, "jitter": False}
    task_id = await api.pending(callbackUrl=BAD_HOOK, retryPolicy=policy)
    await api.post(f"{V1}/tasks/{task_id}/execute", Prefer="wait=1")
    task = await api.task(task_id)
    assert task["status"] == "Retrying"
    assert task["nextAttemptAt"] == "2026-01-02T03:05:05.678901Z"
    assert (task["attempt"], task["attemptsUsed"]) == (1, 1)
    assert task["reason"] == "the callback answered 500"


@pytest.mark.parametrize("task_id", [NOBODY, "nonsense", "%00", "..%2f"])
@pytest.mark.parametrize("part", ["", "/attempts", "/events", "/explain"])
async def test_an_unknown_task_is_not_found(api: Api, task_id: str, part: str) -> None:
    answer = await api.call("GET", f"{V1}/tasks/{task_id}{part}", documented="%" not in task_id)
    assert answer.status == 404


async def test_attempts_are_logged_with_what_went_wrong(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    net.script(HOOK, BROKEN, Held(), CallbackAnswer(status_code=204))
    task_id = await api.executed(timeoutSeconds=4, retryPolicy={"jitter": False})
    log = (await api.get(f"{V1}/tasks/{task_id}/attempts")).json["attempts"]
    assert [one["number"] for one in log] == [1, 2, 3]
    assert [one["result"]["statusCode"] for one in log] == [500, None, 204]
    assert [one["result"]["errorClass"] for one in log] == ["http_status", "timeout", None]
    assert [one["counted"] for one in log] == [True, True, True]
    assert log[0]["result"]["body"] == "broken"
    assert log[1]["durationSeconds"] == pytest.approx(4)
    assert {(one["method"], one["url"]) for one in log} == {("POST", HOOK)}
    starts = [one["startedAt"] for one in log]
    assert starts == sorted(starts)


async def test_a_task_that_never_ran_has_no_attempts(api: Api) -> None:
    task_id = await api.create()
    assert (await api.get(f"{V1}/tasks/{task_id}/attempts")).json == {"attempts": []}


async def test_the_history_shows_every_change_of_status(api: Api) -> None:
    task_id = await failed(api)
    events = (await api.get(f"{V1}/tasks/{task_id}/events")).json["events"]
    assert [(event["from"], event["to"]) for event in events] == [
        (None, "Queued"),
        ("Queued", "Pending"),
        ("Pending", "Processing"),
        ("Processing", "Failed"),
    ]
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    assert {event["taskId"] for event in events} == {task_id}
    assert events[-1]["callbackResult"]["statusCode"] == 500
    assert "the callback answered 500" in events[-1]["reason"]


async def test_an_automatic_task_walks_the_same_states(api: Api) -> None:
    task_id = await api.create(dispatch="auto")
    await api.until(task_id, "Completed")
    events = (await api.get(f"{V1}/tasks/{task_id}/events")).json["events"]
    path = [event["to"] for event in events]
    assert path == ["Queued", "Pending", "Processing", "Completed"]


# -- explain ---------------------------------------------------------------------------------


async def why(api: Api, task_id: str) -> tuple[str, str, Any]:
    answer = await api.get(f"{V1}/tasks/{task_id}/explain")
    assert answer.json["taskId"] == task_id
    assert answer.json["status"] == await api.status(task_id)
    return answer.json["cause"], answer.json["sentence"], answer.json["facts"]


async def test_a_manual_task_waits_for_a_client(api: Api) -> None:
    cause, sentence, _ = await why(api, await api.create())
    assert cause == "waiting_for_dequeue"
    assert "client" in sentence


async def test_a_scheduled_task_waits_for_its_time(api: Api) -> None:
    moment = "2026-06-01T00:00:00.000000Z"
    cause, sentence, facts = await why(api, await api.create(runAt=moment))
    assert (cause, facts) == ("scheduled", {"runAt": moment})
    assert moment in sentence


async def test_a_task_waits_behind_the_one_before_it_of_its_key(api: Api) -> None:
    first, second = await api.create(partitionKey="k"), await api.create(partitionKey="k")
    cause, sentence, facts = await why(api, second)
    assert (cause, facts) == ("behind_earlier_task", {"behind": first, "partitionKey": "k"})
    assert first in sentence


async def test_a_dequeued_task_waits_for_its_client(api: Api) -> None:
    task_id = await api.pending()
    cause, _, facts = await why(api, task_id)
    assert cause == "leased_to_client"
    assert facts == {"until": (await api.task(task_id))["leaseExpiresAt"]}


async def test_a_running_task_says_since_when(api: Api, net: ScriptedNet) -> None:
    net.script(HOOK, Held())
    task_id = await api.create(dispatch="auto")
    await net.wait_for_calls(1)
    cause, _, facts = await why(api, task_id)
    assert (cause, facts["attempt"]) == ("running", 1)


async def test_a_task_between_attempts_says_what_went_wrong(
    api: Api, autojump_clock: MockClock
) -> None:
    policy = {"initialIntervalSeconds": 60, "maxIntervalSeconds": 60, "jitter": False}
    task_id = await api.create(dispatch="auto", callbackUrl=BAD_HOOK, retryPolicy=policy)
    await api.until(task_id, "Retrying")
    cause, sentence, facts = await why(api, task_id)
    assert (cause, facts["lastError"]) == ("waiting_to_retry", "the callback answered 500")
    assert facts["nextAttemptAt"] in sentence


async def test_a_task_waits_when_all_executors_are_busy(net: ScriptedNet) -> None:
    net.script(HOOK, Held())
    async with open_api(net=net, config=EngineConfig(executors=1)) as api:
        await api.create(dispatch="auto")
        await net.wait_for_calls(1)
        cause, _, facts = await why(api, await api.create(dispatch="auto"))
        assert (cause, facts) == ("no_executor_free", {"executorsBusy": 1, "executors": 1})
        net.let_go()


async def test_a_finished_task_has_ended(api: Api) -> None:
    cause, sentence, facts = await why(api, await failed(api))
    assert (cause, facts) == ("ended", {"status": "Failed"})
    assert "the callback answered 500" in sentence


# -- lists -----------------------------------------------------------------------------------


async def walk(api: Api, path: str) -> list[str]:
    """All ids behind a list's links to the next page."""
    found: list[str] = []
    for _ in range(100):
        answer = await api.get(path)
        assert answer.status == 200, answer.text
        found += [task["taskId"] for task in answer.json["tasks"]]
        link = answer.headers.get("Link")
        assert (link is None) == (answer.json["nextCursor"] is None)
        if link is None:
            return found
        assert link.endswith('>; rel="next"')
        path = link[1:].partition(">")[0]
    raise AssertionError("the links never end")


async def test_lists_show_pages_newest_first(api: Api) -> None:
    ids = [await api.create() for _ in range(7)][::-1]
    page = (await api.get(f"{V1}/tasks?page=2&size=3")).json
    assert [task["taskId"] for task in page["tasks"]] == ids[3:6]
    assert (page["totalCount"], page["page"], page["pageSize"]) == (7, 2, 3)
    beyond = (await api.get(f"{V1}/tasks?page=9&size=3")).json
    assert (beyond["tasks"], beyond["totalCount"]) == ([], 7)


async def test_a_list_without_paging_is_its_first_page(api: Api) -> None:
    await api.create()
    page = (await api.get(f"{V1}/tasks")).json
    assert (page["page"], page["pageSize"], page["nextCursor"]) == (1, 50, None)


@pytest.mark.parametrize("start", ["limit=3", "page=1&size=3", "limit=7", "limit=8"])
async def test_following_the_links_shows_every_task_once(api: Api, start: str) -> None:
    ids = [await api.create() for _ in range(7)][::-1]
    assert await walk(api, f"{V1}/tasks?{start}") == ids


async def test_tasks_that_come_meanwhile_do_not_disturb_a_cursor(api: Api) -> None:
    ids = [await api.create() for _ in range(6)][::-1]
    first = await api.get(f"{V1}/tasks?limit=4")
    for _ in range(3):
        await api.create()
    rest = await api.get(f"{V1}/tasks?cursor={first.json['nextCursor']}&limit=4")
    shown = [task["taskId"] for page in (first, rest) for task in page.json["tasks"]]
    assert shown == ids
    assert rest.json["page"] is None
    assert rest.json["totalCount"] == 9


async def test_the_link_keeps_the_filters(api: Api) -> None:
    moment = "2026-01-01T00:00:00+02:00"
    wanted = [await api.create("a b&c", metadata={"k": "v"}) for _ in range(5)][::-1]
    await api.create("a b&c")
    await api.create(metadata={"k": "v"})
    query = f"name={quote('a b&c')}&metadata=k:v&status=Queued&createdAfter={quote(moment)}"
    assert await walk(api, f"{V1}/tasks?limit=2&{query}") == wanted


@pytest.mark.slow
@pytest.mark.parametrize("database", ["memory:", "sqlite:///{folder}/tasks.db"])
async def test_lists_are_filtered(tmp_path: Any, net: ScriptedNet, database: str) -> None:
    async with open_api(net=net, database=database.format(folder=tmp_path)) as api:
        old = await api.create("old", priority=5)
        moment = (await api.task(old))["createdAt"]
        await trio.sleep(0.002)
        one = await api.create("one", priority=5, metadata={"a": "1", "b": "2"})
        two = await api.create("two", metadata={"a": "1"})
        done = await api.executed(name="one")
        await api.delete(f"{V1}/tasks/{two}")

        async def ids(query: str) -> list[str]:
            page = (await api.get(f"{V1}/tasks?{query}")).json
            assert page["totalCount"] == len(page["tasks"])
            return [task["taskId"] for task in page["tasks"]]

        assert await ids("status=Queued") == [one, old]
        assert await ids("status=Completed") == [done]
        assert await ids("status=Processing") == []
        assert await ids("name=one") == [done, one]
        assert await ids("name=One") == []
        assert await ids("priority=5") == [one, old]
        assert await ids("metadata=a:1") == [two, one]
        assert await ids("metadata=a:1,b:2") == [one]
        assert await ids("metadata=a:2") == []
        assert await ids(f"createdAfter={moment}") == [done, two, one]
        assert await ids(f"createdBefore={moment}") == []
        assert await ids(f"createdAfter=2020-01-01T00:00:00Z&createdBefore={moment}") == []
        assert await ids("status=Queued&name=one&priority=5&metadata=b:2") == [one]


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("status=Lost", ["/status"]),
        ("page=0", ["/page"]),
        ("size=251", ["/size"]),
        ("limit=0", ["/limit"]),
        ("page=x&size=y", ["/page", "/size"]),
        ("priority=1000", ["/priority"]),
        ("createdAfter=yesterday", ["/createdAfter"]),
        ("createdBefore=2026-01-02", ["/createdBefore"]),
        ("metadata=novalue", ["/metadata"]),
        ("cursor=nowhere", ["/cursor"]),
        ("cursor=", ["/cursor"]),
        (f"cursor={NOBODY}&page=1", ["/cursor"]),
        ("limit=5&size=5", ["/cursor"]),
        ("status=Queued&status=Failed", ["/status"]),
        ("colour=red", ["/colour"]),
    ],
)
@pytest.mark.parametrize("path", ["/tasks", "/archive", "/dead-letters"])
async def test_bad_filters_and_paging_are_named(
    api: Api, path: str, query: str, pointers: list[str]
) -> None:
    answer = await api.get(f"{V1}{path}?{query}")
    assert (answer.status, answer.pointers) == (400, pointers)


# -- archive and dead letters ----------------------------------------------------------------


async def test_the_archive_holds_what_is_finished_and_nothing_else(api: Api) -> None:
    await api.create()
    await api.pending()
    dead = await failed(api)
    done = await api.executed()
    gone = await api.create()
    await api.delete(f"{V1}/tasks/{gone}")
    page = (await api.get(f"{V1}/archive")).json
    assert [(task["taskId"], task["finalStatus"]) for task in page["tasks"]] == [
        (gone, "Cancelled"),
        (done, "Completed"),
    ]
    assert page["totalCount"] == 2
    one = await api.get(f"{V1}/archive/{done}")
    assert one.json == page["tasks"][1]
    assert one.json["completedAt"] <= one.json["archivedAt"]
    for task_id in (dead, NOBODY, "nonsense"):
        assert (await api.get(f"{V1}/archive/{task_id}")).status == 404


async def test_the_archive_can_be_filtered_by_how_tasks_ended(api: Api) -> None:
    done = await api.executed()
    gone = await api.create()
    await api.delete(f"{V1}/tasks/{gone}")
    await api.create()
    for status, ids in (("Completed", [done]), ("Cancelled", [gone]), ("Queued", [])):
        page = (await api.get(f"{V1}/archive?status={status}")).json
        assert [task["taskId"] for task in page["tasks"]] == ids
        assert page["totalCount"] == len(ids)
    assert await walk(api, f"{V1}/archive?limit=1") == [gone, done]


async def test_dead_letters_are_the_failed_tasks(api: Api) -> None:
    await api.executed()
    await api.create()
    dead = [await failed(api) for _ in range(3)][::-1]
    page = (await api.get(f"{V1}/dead-letters")).json
    assert [task["taskId"] for task in page["tasks"]] == dead
    assert page["totalCount"] == 3
    assert page["tasks"][0]["callbackResult"]["statusCode"] == 500
    assert await walk(api, f"{V1}/dead-letters?limit=2") == dead


async def test_only_failed_tasks_can_be_asked_for_among_dead_letters(api: Api) -> None:
    await api.create()
    dead = await failed(api)
    answer = await api.get(f"{V1}/dead-letters?status=Queued")
    assert (answer.status, answer.pointers) == (400, ["/status"])
    page = (await api.get(f"{V1}/dead-letters?status=Failed")).json
    assert [task["taskId"] for task in page["tasks"]] == [dead]


async def test_one_dead_letter_is_redriven(api: Api, net: ScriptedNet) -> None:
    one, other = await failed(api), await failed(api)
    net.script(BAD_HOOK, CallbackAnswer(status_code=200))
    answer = await api.post(f"{V1}/dead-letters/redrive", {"taskIds": [one.upper()]})
    assert answer.status == 202
    assert answer.json == {"redriven": 1, "taskIds": [one]}
    await api.until(one, "Completed")
    assert await api.status(other) == "Failed"


async def test_dead_letters_are_redriven_by_filter_newest_first(api: Api, net: ScriptedNet) -> None:
    wanted = [await failed(api, name="a", priority=1) for _ in range(3)]
    others = [await failed(api, name="b", priority=1), await failed(api, name="a")]
    net.script(BAD_HOOK, CallbackAnswer(status_code=200))
    body = {"name": "a", "priority": 1, "limit": 2}
    answer = await api.post(f"{V1}/dead-letters/redrive", body)
    assert answer.json == {"redriven": 2, "taskIds": wanted[:0:-1]}
    for task_id in (wanted[0], *others):
        assert await api.status(task_id) == "Failed"


@pytest.mark.parametrize("with_body", [True, False])
async def test_all_dead_letters_are_redriven(api: Api, net: ScriptedNet, with_body: bool) -> None:
    dead = {await failed(api) for _ in range(3)}
    net.script(BAD_HOOK, CallbackAnswer(status_code=200))
    path = f"{V1}/dead-letters/redrive"
    answer = await (api.post(path, {}) if with_body else api.post(path))
    assert answer.json["redriven"] == 3
    assert set(answer.json["taskIds"]) == dead
    for task_id in dead:
        await api.until(task_id, "Completed")
    assert (await api.post(path)).json == {"redriven": 0, "taskIds": []}


async def test_redriving_a_task_that_has_not_failed_says_so(api: Api) -> None:
    task_id = await api.create()
    answer = await api.post(f"{V1}/dead-letters/redrive", {"taskIds": [task_id]})
    assert (answer.status, answer.json["currentStatus"]) == (409, "Queued")
    for unknown in (NOBODY, "nonsense"):
        answer = await api.post(f"{V1}/dead-letters/redrive", {"taskIds": [unknown]})
        assert answer.status == 404


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"taskIds": []}, ["/taskIds"]),
        ({"taskIds": "x"}, ["/taskIds"]),
        ({"limit": 0, "priority": 101}, ["/priority", "/limit"]),
        ({"status": "Failed"}, ["/status"]),
        ([], [""]),
    ],
)
async def test_a_bad_wish_to_redrive_is_named_and_redrives_nothing(
    api: Api, body: Any, pointers: list[str]
) -> None:
    dead = await failed(api)
    answer = await api.post(f"{V1}/dead-letters/redrive", body)
    assert (answer.status, set(answer.pointers)) == (400, set(pointers))
    assert await api.status(dead) == "Failed"


# -- figures ---------------------------------------------------------------------------------


async def test_stats_of_an_idle_engine_are_empty(api: Api) -> None:
    stats = (await api.get(f"{V1}/stats")).json
    assert sum(stats["counts"].values()) == 0
    assert (stats["queueDepth"], stats["oldestWaitingSeconds"]) == (0, None)
    assert (stats["executors"], stats["executorsBusy"]) == (4, 0)
    assert stats["attemptLatency"] == {"p50Seconds": None, "p95Seconds": None, "p99Seconds": None}
    assert stats["successRate"] is None


async def test_stats_count_tasks_attempts_and_time(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    await api.executed()
    await failed(api)
    await api.create()
    net.script(HOOK, Held())
    await api.create(dispatch="auto", timeoutSeconds=100)
    await net.wait_for_calls(3)
    await trio.sleep(12)
    stats = (await api.get(f"{V1}/stats")).json
    counted = {status: count for status, count in stats["counts"].items() if count}
    assert counted == {"Completed": 1, "Failed": 1, "Queued": 1, "Processing": 1}
    assert stats["queueDepth"] == 1
    assert stats["oldestWaitingSeconds"] == pytest.approx(12)
    assert stats["executorsBusy"] == 1
    assert stats["attempts"] == 2
    assert sum(stats["attemptsByOutcome"].values()) == 2
    assert stats["successRate"] == 0.5
    assert stats["attemptLatency"]["p99Seconds"] is not None
    assert stats["newestEvent"] == 4 + 4 + 1 + 3
