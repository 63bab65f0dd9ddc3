"""The express lane: plain requests for operations that answer at once, without ASGI and Quart.

Both cost several times what such a request costs otherwise. The door is the same, and so is all that
follows (``api``). Who waits for something must notice that the client has left, and so takes the
other lane.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import attrs
import trio

from .api import Api, answer_to, answer_to_unexpected
from .auth import ApiKey
from .door import NO_SNIFFING, Door
from .plain import Answer, Plain, ReadBody
from .problems import Problem
from .router import EventStream, Operation

_WITH_ID: Final = re.compile(r"(/.*/)([0-9A-Fa-f-]{36})(/.*)?")

_NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})


class Express:
    """Answers plain requests that come by this lane."""

    def __init__(self, door: Door, operations: Iterable[Operation], api: Api) -> None:
        self._door = door
        self._api = api
        self._operations = {
            (one.method, one.path): one
            for one in operations
            if not one.waits and EventStream not in one.answers.values()
        }

    async def answer(self, plain: Plain, read: ReadBody) -> Answer | None:
        """See ``plain.Lane``."""
        path = plain.path.decode()
        operation, names = self._find(plain.method, path)
        if operation is None:
            return None
        try:
            key = self._door.admit(_scope(plain, path), trio.current_time())
            request = _PlainRequest(plain, path, names, _Headers(plain.headers), key, read)
            answer = await self._api.answer(operation, request)
        except Problem as problem:
            answer = answer_to(problem)
        except trio.BrokenResourceError:
            raise
        except Exception as error:  # noqa: BLE001
            answer = answer_to_unexpected(error)
        answer.headers.append(NO_SNIFFING)
        return answer

    def _find(self, method: str, path: str) -> tuple[Operation | None, Mapping[str, str]]:
        """The operation, and what stands for the ``{names}`` in its path."""
        operation = self._operations.get((method, path))
        if operation is not None and "{" not in path:
            return operation, _NO_NAMES
        found = _WITH_ID.fullmatch(path)
        if found is None:
            return None, _NO_NAMES
        before, task_id, after = found.groups("")
        return self._operations.get((method, f"{before}{{id}}{after}")), {"id": task_id}


def _scope(plain: Plain, path: str) -> Mapping[str, object]:
    """What the door looks at, as ASGI has it."""
    return {
        "http_version": "1.1",
        "method": plain.method,
        "path": path,
        "raw_path": plain.path,
        "headers": plain.headers.items(),
    }


@attrs.define
class _PlainRequest:
    _plain: Plain
    _url_path: str
    path: Mapping[str, str]
    headers: Mapping[str, str]
    key: ApiKey
    _read: ReadBody

    @property
    def url(self) -> str:
        return f"{self._url_path}?{self.query.decode()}".rstrip("?")

    @property
    def query(self) -> bytes:
        return self._plain.query

    @property
    def content_length(self) -> int:
        return self._plain.length

    async def read(self, _most: int) -> bytes:
        return await self._read()


class _Headers(Mapping[str, str]):
    __slots__ = ("_raw",)

    def __init__(self, raw: Mapping[bytes, bytes]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        return self._raw[name.lower().encode()].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode() for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)
