"""The suite's own search for secrets can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.app import V1, Api, open_api
from tests.support.fakes import ScriptedNet
from tests.support.secrets import PLANTED
from tests.support.server import environment

LEAKY = """
import logging
from tests.support.secrets import PLANTED
def test_log(): logging.warning(PLANTED)
def test_print(): print(PLANTED)
def test_neither(): print("nothing")
"""


def test_a_test_that_logs_or_prints_the_planted_secret_fails(tmp_path: Path) -> None:
    file = tmp_path / "test_leaky.py"
    file.write_text(LEAKY)
    alone = ("-c", os.devnull, "--rootdir", str(tmp_path), "-p", "tests.conftest", "-q")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *alone, str(file)],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "2 failed, 1 passed" in ended.stdout, ended.stdout + ended.stderr
    assert "a secret shows in: Captured log call" in ended.stdout
    assert "a secret shows in: Captured stdout call" in ended.stdout


async def test_every_task_carries_it() -> None:
    async with open_api(net=ScriptedNet()) as api:
        task_id = await api.create()
        assert PLANTED in (await api.engine.get(task_id)).spec.headers.values()
        assert (await api.task(task_id))["headers"] == {"X-Planted": "***"}


async def test_a_client_that_sees_it_complains() -> None:
    async with open_api(net=ScriptedNet()) as api:
        with pytest.raises(AssertionError):
            await seen(api, await api.create(payload=PLANTED))


async def seen(api: Api, task_id: str) -> None:
    await api.get(f"{V1}/tasks/{task_id}")
