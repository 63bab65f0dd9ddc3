"""The API as the commands call it: answers as documents, and errors that say what to do next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlsplit

import attrs
import click
import httpx

from web.auth import NO_KEY, is_key
from web.problems import TYPE_PREFIX

from .output import printable
from .values import text_or_file

EXIT_DONE: Final = 0
EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNFINISHED: Final = 3
EXIT_UNREACHABLE: Final = 4

EXIT_CODES: Final = """\b
Exit status:
  0  done
  1  refused by the server, or the task failed
  2  wrong usage
  3  not finished in time
  4  the server cannot be reached
"""

DEFAULT_URL: Final = "http://127.0.0.1:8080"
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 30.0
PAGE_MAX: Final = 250  # the API's longest page

V1: Final = "/api/v1"
Document = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


class Refused(click.ClickException):
    """The server understood and said no; each wrong field has its own line."""

    exit_code = EXIT_REFUSED

    def __init__(self, status: int, problem: Document, retry_after: str | None = None) -> None:
        self.status = status
        self.kind = str(problem.get("type", "")).removeprefix(TYPE_PREFIX)
        self.errors = {
            str(error.get("pointer", "")): str(error.get("detail", ""))
            for error in problem.get("errors", ())
        }
        self.problem = problem
        self.detail = str(problem.get("detail") or problem.get("title") or f"status {status}")
        self.retry_after = retry_after
        super().__init__(self.detail)

    def format_message(self) -> str:
        return printable(self.text(), keep="\n")

    def text(self, names: Mapping[str, str] | None = None) -> str:
        """For people. ``names`` says how the user called what the API calls by a pointer."""
        if self.errors:
            fields = (
                f"  {(names or {}).get(where, where) or 'request'}: {detail}"
                for where, detail in self.errors.items()
            )
            return "\n".join(["the server refused this:", *fields])
        return self.detail + self._advice()

    def _advice(self) -> str:
        match self.kind:
            case "task-not-found":
                return "; see which there are: ringback list"
            case "unauthenticated":
                return "; give one in RINGBACK_API_KEY, or with --api-key @FILE"
            case "insufficient-scope":
                return "; give another in RINGBACK_API_KEY, or with --api-key @FILE"
            case "stopping":
                return "; ask again when it has been started anew"
            case _ if self.retry_after is not None and "try again" not in self.detail:
                return f"; try again in {self.retry_after} s"
            case _:
                return ""


class Unreachable(click.ClickException):
    """There is no answer from the server."""

    exit_code = EXIT_UNREACHABLE

    def __init__(self, url: str, why: str, advice: str = "") -> None:
        advice = advice or "start one with: ringback serve; or name another with --url"
        super().__init__(f"cannot reach a Ringback server at {url} ({why}): {advice}")


class CutOff(Unreachable):
    """The request was sent and no answer came: whether it was carried out is not known."""

    def __init__(self, url: str, method: str, error: httpx.TransportError) -> None:
        late = isinstance(error, httpx.TimeoutException)
        why = f"no answer within {ANSWER_TIMEOUT_S:g} s" if late else str(error) or "cut off"
        unknown = "whether it was carried out is not known; look first: ringback list"
        super().__init__(url, why, "ask again" if method == "GET" else unknown)


@attrs.frozen
class Answer:
    """One answer that is no error. ``document`` is empty when there is no body."""

    status: int
    document: Document
    headers: Mapping[str, str]


class Api:
    """A server, over one kept connection. Use it as a context manager."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url
        self.headers = authorization(api_key)
        # Neither proxies nor .netrc: the stream takes no such way either, and the server is ours.
        self._http = httpx.Client(
            base_url=url,
            trust_env=False,
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            headers={"User-Agent": f"ringback-cli/{version('ringback')}", **self.headers},
        )

    def __enter__(self) -> Self:
        self._http.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.__exit__(kind, error, traceback)

    def create(self, task: Document, idempotency_key: str | None = None) -> Document:
        """Create a task; the answer is its id, status and time."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self.call("POST", "/tasks", body=task, headers=headers).document

    def get(self, task_id: str) -> Document:
        """Everything known of a task."""
        return self.call("GET", _path(task_id)).document

    def attempts(self, task_id: str) -> list[Document]:
        """The attempts of a task, first one first."""
        found = self.call("GET", _path(task_id) + "/attempts").document
        return list(found["attempts"])

    def explain(self, task_id: str) -> str:
        """Why a task is not running, as a sentence."""
        return str(self.call("GET", _path(task_id) + "/explain").document["sentence"])

    def pages(
        self, filters: Mapping[str, str], limit: int, cursor: str | None
    ) -> Iterator[Document]:
        """Pages of tasks, newest first, until ``limit`` tasks have come."""
        while limit > 0:
            query = {**filters, "limit": str(min(limit, PAGE_MAX))}
            if cursor is not None:
                query["cursor"] = cursor
            page = self.call("GET", "/tasks", query=query).document
            yield page
            limit -= len(page["tasks"])
            cursor = page["nextCursor"]
            if cursor is None:
                return

    def cancel(self, task_id: str, *, in_flight: bool) -> None:
        """Cancel a task; with ``in_flight`` also one that is being called."""
        query = {"inFlight": "true"} if in_flight else {}
        self.call("DELETE", _path(task_id), query=query)

    def retry(self, task_id: str) -> Document:
        """Give a failed task another round."""
        return self.call("POST", _path(task_id) + "/retry").document

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Document | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request. Raises ``Refused`` or ``Unreachable``, which the command line shows."""
        try:
            response = self._http.request(
                method, V1 + path, json=body, params=query, headers=headers
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(self.url, str(error) or "no answer") from None
        except httpx.TransportError as error:
            raise CutOff(self.url, method, error) from None
        return self._answer(response)

    def _answer(self, response: httpx.Response) -> Answer:
        kind = response.headers.get("Content-Type", "").partition(";")[0]
        try:
            document = response.json() if response.content else {}
        except ValueError:
            document = None
        if response.is_success and isinstance(document, dict):
            return Answer(response.status_code, document, response.headers)
        if kind == "application/problem+json" and isinstance(document, dict):
            raise Refused(response.status_code, document, response.headers.get("Retry-After"))
        detail = (
            f"{self.url} answered {response.status_code}, and not as a Ringback server does: "
            "check --url"
        )
        raise Refused(response.status_code, {"detail": detail})


def _path(task_id: str) -> str:
    """The path of a task. What cannot be an id is not sent: it could name another path."""
    if not task_id.replace("-", "").isalnum():
        detail = f"no task has the id {task_id}"
        raise Refused(404, {"type": TYPE_PREFIX + "task-not-found", "detail": detail})
    return f"/tasks/{quote(task_id, safe='')}"


def authorization(api_key: str | None) -> dict[str, str]:
    """The headers that carry a key."""
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


def checked_url(_: click.Context, __: click.Parameter, value: str) -> str:
    """The base URL of a server, without a slash at its end."""
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if "@" in value:
        raise click.BadParameter("must carry no user name or password; keys go into --api-key")
    if not valid:
        raise click.BadParameter(f"{value!r} is not the URL of a server, such as {DEFAULT_URL}")
    return value.rstrip("/")


def _checked_key(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """The key. What is wrong with it does not show it."""
    if not value:
        return None
    key = text_or_file(value).strip()
    if not is_key(key):
        raise click.BadParameter(NO_KEY)
    return key


_url_option = click.option(
    "--url",
    default=DEFAULT_URL,
    show_default=True,
    envvar="RINGBACK_URL",
    show_envvar=True,
    callback=checked_url,
    help="the server to talk to",
)
_key_option = click.option(
    "--api-key",
    metavar="KEY|@FILE",
    envvar="RINGBACK_API_KEY",
    show_envvar=True,
    callback=_checked_key,
    help="the API key; others can read command lines, so rather set the variable",
)


def server_option(function: F) -> F:
    """Which server to talk to, and with which key: ``url`` and ``api_key``."""
    return _url_option(_key_option(function))
