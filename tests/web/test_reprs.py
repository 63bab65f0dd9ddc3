"""What a traceback or a log may print of our records shows no secrets."""

from __future__ import annotations

import attrs
import pytest

from engine import EngineConfig, Secret, TaskSpec
from engine.core.callback import build_request
from engine.core.commands import Create
from engine.messages import Request
from tests.support.builders import NOW, a_task
from web.auth import Scope, key_text, known_as
from web.cli.client import Api
from web.serve import ServeOptions
from web.settings import WebSettings

PASSWORD = "repr-pa55word"
SIGNING = Secret(b"k" * 32)
KEY = key_text("ci", bytes(32))
SPEC = TaskSpec(
    name="t",
    callback_url="http://127.0.0.1:1/",
    headers={"X-Api-Key": PASSWORD},
    payload={"card": PASSWORD},
)
TASK = attrs.evolve(a_task(), spec=SPEC)
KNOWN = known_as(KEY, Scope.READ)


@pytest.mark.parametrize(
    ("record", "still_says"),
    [
        (SPEC, "X-Api-Key"),
        (TASK, "X-Api-Key"),
        (Create(((TASK.id, SPEC),)), "X-Api-Key"),
        (Request(Create(((TASK.id, SPEC),)), None), "X-Api-Key"),  # type: ignore[arg-type]
        (build_request(TASK, NOW, "0" * 16, "Ringback", secrets=[SIGNING]), "X-Api-Key"),
        (SIGNING, SIGNING.key_id),
        (EngineConfig(signing_secrets=(SIGNING,)), "executors"),
        (WebSettings(api_keys=KNOWN.entry()), "ci (read)"),
        (KNOWN, "ci"),
        (ServeOptions(database=f"postgresql://anna:{PASSWORD}@db/x"), "@db/x"),
        (Api("http://127.0.0.1:1", KEY), "Api"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_repr_shows_what_helps_and_no_secret(record: object, still_says: str) -> None:
    shown = repr(record)
    assert still_says in shown
    for secret in (
        PASSWORD,
        KEY[-43:],
        KNOWN.digest.hex(),
        SIGNING.reveal()[6:],
        repr(SIGNING.key),
    ):
        assert secret not in shown
