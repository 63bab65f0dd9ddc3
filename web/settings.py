"""Every limit of the web part. Units stand in the names."""

from __future__ import annotations

from typing import Any

import attrs


def _limit(default: float, doc: str) -> Any:
    return attrs.field(default=default, validator=attrs.validators.gt(0), metadata={"doc": doc})


@attrs.frozen(kw_only=True)
class WebSettings:
    """Limits of the API and the stream."""

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
