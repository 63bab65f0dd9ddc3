"""The short form of ``python -m tests.attack schema``: the API is what its description says."""

from __future__ import annotations

import http.client
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.attack.schema import SETTINGS, faults_in, try_schema
from tests.attack.schema_documents import send_documents
from tests.attack.target import open_target
from tests.support.live import live_server

CASES = 2_000
DOCUMENTS = 2_000


@pytest.mark.proof
@pytest.mark.timeout(600)
async def test_every_request_that_the_description_leads_to_is_answered_as_it_says() -> None:
    async with open_target(*SETTINGS) as target:
        tried = await try_schema(target, CASES, seed=1)
        assert tried.failures == []
        assert tried.server_errors == 0
        assert tried.answered.total() >= CASES
        assert {"200", "201", "202", "204", "400", "404", "405", "409", "415", "422"} <= set(
            tried.answered
        )
        assert tried.links > 10
        assert faults_in(target.log()) == []


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_odd_json_is_accepted_or_refused_and_never_breaks_the_server(tmp_path: Path) -> None:
    with live_server(f"sqlite:///{tmp_path}/tasks.db") as live:
        answered = send_documents(live.url, DOCUMENTS, seed=1)
        assert set(answered) <= {"200", "201", "202", "400", "404", "409", "413"}
        assert answered["201"] > DOCUMENTS // 20
        assert answered["400"] > DOCUMENTS // 4
        assert answered.total() >= DOCUMENTS


@pytest.mark.slow
def test_a_method_that_a_path_does_not_have_is_refused_also_where_an_id_could_stand() -> None:
    with live_server("memory:") as live:
        for path in ("batch", "dequeue"):
            answer = ask(live.url, "PATCH", f"/api/v1/tasks/{path}")
            assert answer.status == 405
            assert set((answer.getheader("Allow") or "").split(", ")) == {"POST", "OPTIONS"}
        for path in ("no-id", "batches", "batch%2F"):
            answer = ask(live.url, "PATCH", f"/api/v1/tasks/{path}")
            assert (answer.status, answer.getheader("Allow")) == (404, None)


def ask(url: str, method: str, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    with closing(connection):
        body = b'{"priority":1}'
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer
