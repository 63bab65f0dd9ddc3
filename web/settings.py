"""Every limit of the web part: of the API, and of the server below it. Units stand in the names."""

from __future__ import annotations

from typing import Any

import attrs

from .auth import Keyring, parse_keys
from .hosts import parse_hosts, parse_origins


def _limit(default: float, doc: str) -> Any:
    return attrs.field(default=default, validator=attrs.validators.gt(0), metadata={"doc": doc})


def _at_will(default: float, doc: str) -> Any:
    return attrs.field(default=default, validator=attrs.validators.ge(0), metadata={"doc": doc})


@attrs.frozen(kw_only=True)
class WebSettings:
    """Who may use the API, and its limits and those of the stream."""

    api_keys: Keyring = attrs.field(
        default=Keyring(),
        converter=parse_keys,
        metadata={
            "doc": "entries ID:SCOPE:HASH of the keys that may use the API; commas between them",
            "default": "none: who can connect may do everything",
            "file": True,
        },
    )
    key_requests_per_second: float = _at_will(
        0.0, "requests a second of one API key; 0 is no limit"
    )
    allowed_hosts: tuple[str, ...] = attrs.field(
        default=(),
        converter=parse_hosts,
        metadata={
            "doc": "names of this server, as clients call it; .example.com also for all names below",
            "default": "`localhost`, `--host`, the machine's name and all addresses",
        },
    )
    allowed_origins: tuple[str, ...] = attrs.field(
        default=(),
        converter=parse_origins,
        metadata={
            "doc": "pages from elsewhere that may use the API, as https://admin.example.com",
            "default": "none",
        },
    )

    body_bytes_max: int = _limit(1024 * 1024, "bytes of a request's body")
    batch_bytes_max: int = _limit(16 * 1024 * 1024, "bytes of a batch's body")
    batch_tasks_max: int = _limit(1000, "tasks in a batch")
    subscribe_timeout_s: float = _limit(10.0, "time a websocket may take to subscribe")
    json_depth_max: int = _limit(64, "levels of nesting in JSON")
    wait_default_s: float = _limit(30.0, "how long execute waits for the end by default")
    wait_max_s: float = _limit(600.0, "longest time a client may wait")
    page_size: int = _limit(50, "tasks on a page by default")
    snapshot_max: int = _limit(10_000, "tasks in a snapshot of the stream")
    heartbeat_s: float = _limit(15.0, "pause after which an idle stream says it lives")


@attrs.frozen(kw_only=True)
class ServerConfig:
    """Settings of one server. Each has a safe default; a wrong one raises ``ValueError`` here."""

    host: str = attrs.field(default="127.0.0.1", metadata={"doc": "address to listen on"})
    port: int = attrs.field(default=8080, metadata={"doc": "port to listen on; 0 is any free one"})
    backlog: int = _limit(4096, "connections the kernel keeps until they are accepted")
    connections_max: int = _limit(
        10_000,
        "open connections; when there are so many, those idle longest make room and others wait in the kernel's backlog",
    )
    keep_alive_s: float = _limit(5.0, "how long a connection may wait for its next request")
    headers_timeout_s: float = _limit(5.0, "time for the line and headers of a request, in all")
    body_timeout_s: float = _limit(20.0, "time for the body of a request, in all")
    send_timeout_s: float = _limit(5.0, "time a client may take to read 64 KiB")
    header_bytes_max: int = _limit(8192, "size of the line and headers of a request")
    websocket_message_bytes_max: int = _limit(4096, "size of a message from a websocket client")
    grace_s: float = _limit(30.0, "time requests in progress get when the server stops")
