"""The peers as far as they go without being installed: their locks, and what is said when one cannot run."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import trio

from benchmarks.peers import PEERS, NotInstallable
from benchmarks.peers.processes import start
from benchmarks.peers.projects import HERE, NodeProject, PythonEnvironment
from benchmarks.stack import StartError

EXACT = re.compile(r"\d+(\.\d+)*([-.]?\w+)*")
PYTHON = sorted(path.parent.name for path in HERE.glob("*/requirements.txt"))
NODE = sorted(path.parent.name for path in HERE.glob("*/package-lock.json"))


def pins(path: Path) -> list[str]:
    """The requirements of a file, without hashes and comments."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split(" \\")[0] for line in lines if line[:1] not in (" ", "#", "")]


@pytest.fixture
def no_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
def test_a_peer_has_a_lock_that_names_what_it_tells(peer):
    locked = peer.project.locked()

    assert set(peer.packages) <= set(locked)
    assert all(EXACT.fullmatch(version) for version in locked.values())


@pytest.mark.parametrize("folder", PYTHON)
def test_python_locks_pin_exact_versions_by_hash(folder):
    wanted, locked = pins(HERE / folder / "requirements.in"), HERE / folder / "requirements.txt"

    assert all("==" in requirement for requirement in [*wanted, *pins(locked)])
    for block in re.split(r"^(?=\S)", locked.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block
    assert {re.split(r"[\[=]", each)[0] for each in wanted} <= set(
        PythonEnvironment(folder).locked()
    )


@pytest.mark.parametrize("folder", NODE)
def test_node_locks_pin_exact_versions_and_name_no_registry(folder):
    asked = json.loads((HERE / folder / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((HERE / folder / "package-lock.json").read_text(encoding="utf-8"))
    locked = NodeProject(folder).locked()

    for name, version in (asked["dependencies"] | asked["optionalDependencies"]).items():
        assert EXACT.fullmatch(version)
        assert locked[name] == version
    for path, package in lock["packages"].items():
        assert "resolved" not in package
        assert not path or package["integrity"]


@pytest.mark.parametrize("name", ["bullmq-everysec", "arq"])
async def test_a_missing_database_is_named_with_its_package(name, no_programs, tmp_path):
    with pytest.raises(NotInstallable, match=r"redis-server was not found .*install redis-server"):
        PEERS[name].prepare(print)
    with pytest.raises(NotInstallable, match=r"redis-server was not found .*install redis-server"):
        async with PEERS[name].open(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_missing_installer_is_named_with_its_package(no_programs):
    with pytest.raises(NotInstallable, match=r"npm was not found .*install npm"):
        NodeProject("pgboss").prepare(print)


async def test_the_whole_group_of_a_process_ends_with_the_block(tmp_path):
    child = "import time; print('up', flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"

    async with start([sys.executable, "-c", parent], tmp_path, name="family") as family:

        async def child_is_up() -> bool:
            return "up" in family.err.read_text(encoding="utf-8")

        await family.until(child_is_up)
        group = family.pid

    for _ in range(200):  # orphans go as soon as init has collected them
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        await trio.sleep(0.01)
    pytest.fail("something of the group is left")


async def test_what_does_not_come_up_tells_what_it_wrote(tmp_path):
    async def never() -> bool:
        return False

    with pytest.raises(StartError, match=r"(?s)moody did not come up \(exit 3\).*not today"):
        async with start(
            [sys.executable, "-c", "import sys; print('not today'); sys.exit(3)"],
            tmp_path,
            name="moody",
        ) as moody:
            await moody.until(never)
