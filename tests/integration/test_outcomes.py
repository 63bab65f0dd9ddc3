"""Every outcome of a callback, by real sockets: what the attempt log says of it, that it ends in
time, and that the executors that met it can all work afterwards, at the same callee."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from engine import (
    Engine,
    EngineConfig,
    ErrorClass,
    Ports,
    RetryPolicy,
    Status,
    open_engine,
    system_ports,
)
from engine.adapters.http import HttpCallbackNet
from engine.adapters.http.names import SystemNames
from engine.adapters.http.wire import Wire, connect_tcp
from engine.core.egress import EgressPolicy
from engine.core.lifecycle import ENDED
from engine.core.outcome import PERMANENT
from tests.support.builders import a_spec
from tests.support.callees import (
    CHUNKED,
    UNTIL_CLOSE,
    Callee,
    Certificates,
    answers_unread,
    closes_unread,
    endless,
    hang,
    keeps_saying,
    make_certificates,
    never_reads,
    open_callee,
    resets,
    says,
    status_in_path,
    together,
)
from tests.support.raw_server import Script, answer

pytestmark = pytest.mark.slow

EXECUTORS = 3
CONNECT_S = 0.4
AT_ONCE = RetryPolicy(max_attempts=2, initial_interval_s=0.0)
METADATA = "http://169.254.169.254/latest/meta-data/"
BOMB = gzip.compress(b"\0" * 2**24) * 64  # one member after the other: 1 GiB of zeros in 1 MiB


@attrs.frozen(kw_only=True)
class Row:
    """A callee, and what must come of a task with two attempts at it. Each attempt ends alike."""

    script: Script | None = hang  # none: nobody listens
    tls: str | None = None  # which certificate it shows under https, or "none"
    full: bool = False  # it takes nobody in
    payload: Any = None
    timeout_s: float = 5.0
    status: Status = Status.FAILED
    error_class: ErrorClass | None = None
    error: str = ""  # part of what is told
    status_code: int | None = None
    body: str | None = None  # its beginning
    truncated: bool = False
    attempts: int = 2


def good(**fields: Any) -> Row:
    return Row(**{"status": Status.COMPLETED, "status_code": 200, "attempts": 1, **fields})


def refused(status_code: int, **fields: Any) -> Row:
    kind = ErrorClass.REDIRECT if 300 <= status_code <= 399 else ErrorClass.HTTP_STATUS
    error = f"the callback answered {status_code}"
    return Row(**{"status_code": status_code, "error_class": kind, "error": error, **fields})


def failed(error_class: ErrorClass, **fields: Any) -> Row:
    return Row(error_class=error_class, **fields)


def length(value: str, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: " + value.encode() + b"\r\n\r\n" + body


ANSWERS = {
    "an answer": good(script=keeps_saying(answer(b"hello")), body="hello"),
    "an answer over TLS": good(script=keeps_saying(answer(b"hello")), tls="good", body="hello"),
    "an answer in many pieces": good(
        script=keeps_saying(*[bytes([byte]) for byte in answer(b"hello")]), body="hello"
    ),
    "an answer to a request that was not read": good(script=answers_unread, body="hasty"),
    "no length, until the close": good(script=says(UNTIL_CLOSE + b"all"), body="all"),
    "HTTP/1.0": good(script=says(b"HTTP/1.0 200 OK\r\n\r\nold"), body="old"),
    "chunks with a trailer": good(
        script=keeps_saying(CHUNKED + b"3;a=b\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"), body="abc"
    ),
    "100 first": good(script=keeps_saying(b"HTTP/1.1 100 Continue\r\n\r\n", answer(b"x"))),
    "103 first": good(
        script=keeps_saying(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(b"x"))
    ),
    "204 with a body": good(
        script=keeps_saying(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"),
        status_code=204,
        body="",
    ),
    "a body with NUL and bytes that are not UTF-8": good(
        script=keeps_saying(answer(b"a\x00b\xff")), body="a\ufffdb\ufffd"
    ),
    "large headers": good(script=keeps_saying(answer(b"x", 200, Large="x" * 8000))),
    "X-Task-No-Retry with a success": good(
        script=keeps_saying(answer(b"x", 200, X_Task_No_Retry="true"))
    ),
}

REFUSALS = {
    "a redirect to cloud metadata": refused(
        302,
        script=keeps_saying(answer(b"go", 302, Location=METADATA)),
        body="go",
        error="the callback answered 302; redirects are not followed",
    ),
    "a permanent redirect": refused(308, script=keeps_saying(answer(b"", 308, Location="/b"))),
    "a redirect to nowhere": refused(301, script=keeps_saying(answer(b"", 301))),
    "304": refused(304, script=keeps_saying(b"HTTP/1.1 304 Not Modified\r\n\r\n")),
    "500 that closes": refused(500, script=says(answer(b"oh", 500)), body="oh"),
    "410": refused(410, script=keeps_saying(answer(b"", 410)), attempts=1),
    "422": refused(422, script=keeps_saying(answer(b"bad", 422)), body="bad", attempts=1),
    "X-Task-No-Retry with 503": refused(
        503, script=keeps_saying(answer(b"", 503, X_Task_No_Retry="true")), attempts=1
    ),
    "X-Task-No-Retry with a redirect": refused(
        302, script=keeps_saying(answer(b"", 302, X_Task_No_Retry="TRUE")), attempts=1
    ),
    "X-Task-No-Retry that says no": refused(
        503, script=keeps_saying(answer(b"", 503, X_Task_No_Retry="false"))
    ),
    "a status nobody knows": refused(599, script=keeps_saying(answer(b"", 599))),
}

CONNECTIONS = {
    "nobody listens": failed(ErrorClass.REFUSED, script=None, error="Connection refused"),
    "closed before the request is read": failed(ErrorClass.DISCONNECTED, script=closes_unread),
    "reset before the request is read": failed(ErrorClass.DISCONNECTED, script=resets(unread=True)),
    "closed after the request": failed(ErrorClass.DISCONNECTED, script=says()),
    "reset after the request": failed(ErrorClass.DISCONNECTED, script=resets()),
    "closed in the head": failed(ErrorClass.DISCONNECTED, script=says(b"HTTP/1.1 200 OK\r\nA:")),
    "reset in the head": failed(ErrorClass.DISCONNECTED, script=resets(b"HTTP/1.1 200 OK\r\nA:")),
    "reset in the body": failed(ErrorClass.DISCONNECTED, script=resets(length("10", b"abc"))),
    "closed in a chunk": failed(ErrorClass.DISCONNECTED, script=says(CHUNKED + b"5\r\nab")),
    "nobody takes the connection": failed(ErrorClass.CONNECT_TIMEOUT, full=True),
}

TLS = {
    "an expired certificate": failed(ErrorClass.TLS, tls="expired", error="expired"),
    "a certificate of the future": failed(ErrorClass.TLS, tls="not_yet", error="not yet valid"),
    "a certificate for another name": failed(ErrorClass.TLS, tls="wrong_name", error="mismatch"),
    "a self-signed certificate": failed(ErrorClass.TLS, tls="self_signed", error="self-signed"),
    "a certificate of an unknown issuer": failed(
        ErrorClass.TLS, tls="unknown_issuer", error="unable to get local issuer"
    ),
    "no TLS at a TLS port": failed(ErrorClass.TLS, tls="none", script=answers_unread),
}

TIMES = {
    "silence": failed(ErrorClass.TIMEOUT, script=hang),
    "a head of one byte now and then": failed(
        ErrorClass.TIMEOUT, script=endless(b"HTTP/1.1 200 OK\r\nA: ", b"x", pause_s=0.01)
    ),
    "a body of one byte a second": failed(
        ErrorClass.TIMEOUT, script=endless(UNTIL_CLOSE, b"x", pause_s=1.0)
    ),
    "chunks of one byte now and then": failed(
        ErrorClass.TIMEOUT, script=endless(CHUNKED, b"1\r\nx\r\n", pause_s=0.01)
    ),
    "a request that is not read": failed(
        ErrorClass.TIMEOUT, script=never_reads, payload="x" * 10_000_000
    ),
    "silence before TLS": failed(ErrorClass.CONNECT_TIMEOUT, tls="none", script=never_reads),
}
TIMES = {name: attrs.evolve(row, timeout_s=0.6) for name, row in TIMES.items()}

ENDLESS = {
    "a body without end": good(script=endless(UNTIL_CLOSE, b"x" * 10_000), truncated=True),
    "chunks without end": good(
        script=endless(CHUNKED, b"400\r\n" + b"x" * 1024 + b"\r\n"), truncated=True
    ),
    "an error's body without end": refused(
        500,
        script=endless(b"HTTP/1.1 500 Oh\r\n\r\n", b"x" * 10_000),
        truncated=True,
    ),
    "a compressed GiB": good(
        script=keeps_saying(answer(BOMB, 200, Content_Encoding="gzip")),
        body="\x1f\ufffd\x08",  # as it came
        truncated=True,
    ),
    "a length of a TiB": good(
        script=endless(length("1099511627776", b""), b"x" * 10_000), truncated=True
    ),
    "headers without end": failed(
        ErrorClass.PROTOCOL, script=endless(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 1000)
    ),
    "a header without end": failed(
        ErrorClass.PROTOCOL, script=endless(b"HTTP/1.1 200 OK\r\nA: ", b"x" * 10_000)
    ),
    "a status line without end": failed(
        ErrorClass.PROTOCOL, script=endless(b"HTTP/1.1 200 ", b"x" * 10_000)
    ),
    "a chunk size without end": failed(ErrorClass.PROTOCOL, script=endless(CHUNKED, b"0" * 10_000)),
    "a trailer without end": failed(
        ErrorClass.PROTOCOL, script=endless(CHUNKED + b"0\r\n", b"A: b\r\n" * 1000)
    ),
}

LIES = {
    "a body shorter than its length": failed(
        ErrorClass.DISCONNECTED, script=says(length("100", b"abc"))
    ),
    "a body longer than its length": good(
        script=keeps_saying(length("2", b"abc") + answer(b"forged")), body="ab"
    ),
    "two lengths": failed(
        ErrorClass.PROTOCOL, script=says(length("1\r\nContent-Length: 2", b"ab"))
    ),
    "a negative length": failed(ErrorClass.PROTOCOL, script=says(length("-1", b"ab"))),
    "a length that is no number": failed(ErrorClass.PROTOCOL, script=says(length("ten", b"ab"))),
    "a chunk size that is no number": failed(
        ErrorClass.PROTOCOL, script=says(CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n")
    ),
    "a page as HTTP/0.9 had it": failed(
        ErrorClass.PROTOCOL, script=says(b"<html>\r\n\r\nit works</html>\r\n")
    ),
    "another protocol": failed(ErrorClass.PROTOCOL, script=says(b"220 mail.example ESMTP\r\n\r\n")),
    "random bytes": failed(ErrorClass.PROTOCOL, script=says(bytes(range(256)) + b"\r\n\r\n")),
    "a status that is no number": failed(
        ErrorClass.PROTOCOL, script=says(b"HTTP/1.1 two OK\r\n\r\n")
    ),
    "NUL in a header's name": failed(
        ErrorClass.PROTOCOL, script=says(b"HTTP/1.1 200 OK\r\nA\x00: b\r\n\r\n")
    ),
}

ROWS = ANSWERS | REFUSALS | CONNECTIONS | TLS | TIMES | ENDLESS | LIES


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trust(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.trusted))


@asynccontextmanager
async def running(net: HttpCallbackNet | None = None, **settings: Any) -> AsyncIterator[Engine]:
    config = EngineConfig(executors=EXECUTORS, grace_s=2.0, connect_timeout_s=CONNECT_S, **settings)
    ports: Ports | None = None
    if net is not None:
        ports = attrs.evolve(system_ports(config, "memory:"), net=net)
    async with open_engine(config, ports=ports) as engine:
        yield engine


async def submit(engine: Engine, *urls: str, **fields: Any) -> list[str]:
    specs = [a_spec(**{"callback_url": url, "retry_policy": AT_ONCE, **fields}) for url in urls]
    return [receipt.task_id for receipt in (await engine.submit(specs)).receipts]


async def until_ended(engine: Engine, task_ids: list[str]) -> None:
    with trio.fail_after(30):
        for task_id in task_ids:
            while (await engine.get(task_id)).status not in ENDED:  # noqa: ASYNC110 - from outside
                await trio.sleep(0.01)


async def check_nobody_harmed(
    engine: Engine, callee: Callee, certificates: Certificates, host: str = "127.0.0.1"
) -> None:
    """All executors at once are called back by the same port, now that it behaves."""
    callee.tls = certificates.good if callee.scheme == "https" else None
    callee.become(together(EXECUTORS))
    await callee.serve()
    task_ids = await submit(engine, *[callee.url(host=host)] * EXECUTORS)
    await until_ended(engine, task_ids)
    for task_id in task_ids:
        task = await engine.get(task_id)
        assert (task.status, task.attempt) == (Status.COMPLETED, 1), task.result
    assert (await engine.stats()).executors_busy == 0


@asynccontextmanager
async def callee_of(row: Row, certificates: Certificates) -> AsyncIterator[Callee]:
    async with open_callee(None if row.full else row.script) as callee:
        if row.full:
            await callee.fill()
        if row.tls is not None:
            callee.scheme = "https"
            callee.tls = getattr(certificates, row.tls, None)
        yield callee


async def check_row(engine: Engine, row: Row, task_id: str) -> None:
    """The task and its attempt log say what the row says, attempt by attempt."""
    task = await engine.get(task_id)
    assert task.status is row.status, task.result
    attempts = await engine.attempts(task_id)
    assert [attempt.number for attempt in attempts] == list(range(1, row.attempts + 1))
    assert task.failures == (0 if row.status is Status.COMPLETED else row.attempts)
    for attempt in attempts:
        result = attempt.result
        assert (result.error_class, result.status_code) == (row.error_class, row.status_code)
        assert row.error in (result.error or "")
        assert (result.error is None) == (row.error_class is None)
        assert (result.body is None) == (row.status_code is None)
        assert (result.body or "").startswith(row.body or "")
        assert len(result.body or "") <= engine.config.answer_bytes_max
        assert result.truncated == row.truncated
        assert attempt.counted
        assert attempt.duration_s <= row.timeout_s + 1


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_an_outcome_is_logged_for_what_it_is_and_harms_no_executor(
    row: Row, certificates: Certificates, trust: None
) -> None:
    async with callee_of(row, certificates) as callee, running() as engine:
        (task_id,) = await submit(
            engine, callee.url(), timeout_s=row.timeout_s, payload=row.payload
        )
        await until_ended(engine, [task_id])
        await check_row(engine, row, task_id)
        assert len(callee.seen) in (0, row.attempts)  # no request was sent twice
        await check_nobody_harmed(engine, callee, certificates)


async def test_every_status_is_an_outcome() -> None:
    statuses = [*range(200, 600), 600, 799, 999]
    never_opens = 2.0  # most of them are failures, and all at one destination
    async with (
        open_callee(status_in_path) as callee,
        running(breaker_ratio=never_opens) as engine,
    ):
        ids = await submit(engine, *[callee.url(f"/status/{status}") for status in statuses])
        await until_ended(engine, ids)
        for status, task_id in zip(statuses, ids, strict=True):
            row = attrs.evolve(
                good() if status <= 299 else refused(status),
                status_code=status,
                body=None if status in (204, 304) else "said",
                attempts=1 if status <= 299 or status in PERMANENT else 2,
            )
            await check_row(engine, row, task_id)


# -- names -------------------------------------------------------------------------------------


class Zone:
    """What stands in for the system's name server. Asked in threads."""

    def __init__(self, *addresses: str, errno: int | None = None, silent: bool = False) -> None:
        self.addresses, self.errno = addresses, errno
        self.speaks = threading.Event()
        if not silent:
            self.speaks.set()

    def ask(self, host: str) -> Sequence[str]:
        self.speaks.wait(10)
        if self.errno is not None:
            raise socket.gaierror(self.errno, "as the test wants it")
        return self.addresses

    def become(self, *addresses: str) -> None:
        self.addresses, self.errno = addresses, None
        self.speaks.set()


class Roads:
    """Connects, to this machine alone, and remembers whom it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def connect(self, address: str, port: int) -> Wire:
        self.asked.append(address)
        assert address == "127.0.0.1"
        return await connect_tcp(address, port)


NAMES = {
    "a name that does not exist": (
        lambda: Zone(errno=socket.EAI_NONAME),
        failed(ErrorClass.DNS, error="as the test wants it"),
    ),
    "a name server in trouble": (lambda: Zone(errno=socket.EAI_AGAIN), failed(ErrorClass.DNS)),
    "a name server that is silent": (
        lambda: Zone(silent=True),
        failed(ErrorClass.DNS, error="took too long"),
    ),
    "a name of cloud metadata": (
        lambda: Zone("169.254.169.254"),
        failed(ErrorClass.EGRESS_DENIED, error="169.254.169.254"),
    ),
    "a name with a forbidden address among good ones": (
        lambda: Zone("127.0.0.1", "169.254.169.254"),
        failed(ErrorClass.EGRESS_DENIED),
    ),
    "a name whose only address hides another": (
        lambda: Zone("64:ff9b::a9fe:a9fe"),
        failed(ErrorClass.EGRESS_DENIED),
    ),
}


@pytest.mark.parametrize(("make_zone", "row"), NAMES.values(), ids=NAMES)
async def test_a_name_that_leads_nowhere_is_an_outcome_and_nothing_is_connected_to(
    make_zone: Callable[[], Zone], row: Row, certificates: Certificates
) -> None:
    zone, roads = make_zone(), Roads()
    net = HttpCallbackNet(
        body_bytes_max=1000,
        connect_timeout_s=CONNECT_S,
        egress=EgressPolicy(),
        resolver=SystemNames(zone.ask),
        connect=roads.connect,
    )
    async with open_callee(hang) as callee, running(net) as engine:
        try:
            (task_id,) = await submit(engine, callee.url(host="callee.test"))
            await until_ended(engine, [task_id])
        finally:
            zone.become("127.0.0.1")
        await check_row(engine, row, task_id)
        assert roads.asked == []
        await check_nobody_harmed(engine, callee, certificates, host="callee.test")
        assert roads.asked == ["127.0.0.1"] * EXECUTORS
