"""JSON documents out of the ordinary, made by Hypothesis and sent to a real server."""

from __future__ import annotations

import http.client
import json
import sys
from collections import Counter
from typing import Final
from urllib.parse import urlsplit

from hypothesis import HealthCheck, given, seed as seeded, settings, strategies as st

TOGETHER: Final = 20  # documents of one example
DEEP: Final = (8, 63, 64, 65, 1_000, 100_000)  # 64 levels are allowed
TIMEOUT_S: Final = 30.0

CALLED: Final = (
    ("POST", "/api/v1/tasks"),
    ("POST", "/api/v1/tasks/batch"),
    ("POST", "/api/v1/tasks/dequeue"),
    ("POST", "/api/v1/dead-letters/redrive"),
    ("PATCH", "/api/v1/tasks/01a20327-c1d2-7000-aba7-5402b4fa3cb0"),
    ("POST", "/api/tasks"),
)

_numbers = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.integers(1, 5000).map(lambda digits: "9" * digits),
    st.floats().map(repr),  # nan and inf, as Python spells them
    st.sampled_from(
        [
            "NaN",
            "Infinity",
            "-Infinity",
            "-0",
            "1e400",
            "-1e400",
            "1e-400",
            "1E+2",
            "01",
            "+1",
            ".5",
            "1.",
            "0x10",
        ]
    ),
)
_texts = st.one_of(
    st.text(max_size=20).map(json.dumps),
    st.text(max_size=20).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from([
        r'"\ud800"', r'"\udfff\ud800"', r'"\u0000"', r'"\uFFFE"', r'"\x41"', '"\t"', '"', "'a'", '"\\',
    ]),
)  # fmt: skip
_atoms = st.one_of(
    _numbers, _texts, st.sampled_from(["null", "true", "false", "nul", "", "[", "}"])
)


def _object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"


_any = st.recursive(
    _atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: "[" + ",".join(items) + "]"),
        st.lists(st.tuples(_texts, inner), max_size=4).map(_object),  # may have a name twice
    ),
    max_leaves=12,
)
_deep = st.tuples(st.sampled_from(DEEP), st.sampled_from(["[]", '{"a":}'])).map(
    lambda each: each[1][:-1] * each[0] + "1" + each[1][-1] * each[0]
)
_FIELDS: Final = (
    *(
        "payload",
        "payload",
        "payload",
        "name",
        "priority",
        "runAt",
        "delaySeconds",
        "deadline",
        "timeoutSeconds",
    ),
    *("retryPolicy", "method", "headers", "metadata", "partitionKey", "description", "taskData"),
)
# Well meant but for one field. Nothing is called: whoever drives them, these tasks are manual.
_tasks = st.tuples(st.sampled_from(_FIELDS), _any | _deep).map(
    lambda field: (
        f'{{"name":"n","callbackUrl":"http://127.0.0.1:1/","dispatch":"manual","{field[0]}":{field[1]}}}'
    )
)
_batches = st.lists(_tasks, min_size=1, max_size=3).map(
    lambda tasks: '{"tasks":[' + ",".join(tasks) + "]}"
)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_bytes = st.one_of(
    st.one_of(_any, _deep, _tasks, _batches).map(_encoded),
    st.binary(max_size=60),
    _any.map(lambda text: text.encode("utf-16", "surrogatepass")),
    _tasks.map(lambda text: b"\xef\xbb\xbf" + _encoded(text)),
)
_documents = st.one_of(
    st.tuples(st.sampled_from(CALLED), _bytes),
    st.tuples(st.just(CALLED[0]), _tasks.map(_encoded)),
    st.tuples(st.just(CALLED[1]), _batches.map(_encoded)),
)


def send_documents(url: str, count: int, seed: int) -> Counter[str]:
    """Send so many, one after the other; how they were answered. What is not answered at all is a
    ``cut off``."""
    answered: Counter[str] = Counter()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)

    def send(method: str, path: str, body: bytes) -> None:
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            answered[str(answer.status)] += 1
        except (OSError, http.client.HTTPException):
            connection.close()
            answered["cut off"] += 1
        if answered.total() % 10_000 == 0:
            sys.stderr.write(f"  {answered.total():,} documents\n")

    @seeded(seed)
    @settings(
        max_examples=-(-count // TOGETHER),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(_documents, min_size=TOGETHER, max_size=TOGETHER))
    def run(documents: list[tuple[tuple[str, str], bytes]]) -> None:
        for (method, path), body in documents:
            send(method, path, body)

    run()
    connection.close()
    return answered
