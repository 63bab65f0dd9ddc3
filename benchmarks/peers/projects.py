"""The apps of the peers: foreign programs, installed from their locks into folders of their own."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import attrs

from benchmarks.peers.processes import NotInstallable, program

HERE: Final = Path(__file__).parent
INSTALLED: Final = HERE / ".installed"
_STAMP: Final = "installed-from.txt"
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", re.MULTILINE)


class Project(Protocol):
    """An API and a worker, in whatever language."""

    def locked(self) -> Mapping[str, str]:
        """Every package it runs with, and its version."""

    def prepare(self, say: Callable[[str], None]) -> None:
        """Install it unless that is done. Raises NotInstallable."""

    def setup(self) -> Sequence[str] | None:
        """The command that makes its tables, if it needs any."""

    def api(self, port: int) -> Sequence[str]:
        """The command that serves HTTP on 127.0.0.1. Raises NotInstallable if not prepared."""

    def worker(self) -> Sequence[str]:
        """The command that works the queue off."""

    def environment(self) -> Mapping[str, str]: ...


@attrs.frozen
class NodeProject:
    """``server.mjs`` and ``worker.mjs``, run by the Node that the lock names."""

    folder: str

    def locked(self) -> Mapping[str, str]:
        lock = json.loads(self._lock.read_text(encoding="utf-8"))
        return {
            path.removeprefix("node_modules/"): package["version"]
            for path, package in lock["packages"].items()
            if path
        }

    def prepare(self, say: Callable[[str], None]) -> None:
        npm = program("npm", "npm")
        self._place.mkdir(parents=True, exist_ok=True)
        for source in (*(HERE / "node").glob("*.mjs"), *(HERE / self.folder).iterdir()):
            shutil.copy(source, self._place)
        if not _is_installed(self._place, self._lock):
            say(f"installing {self.folder} (npm ci)")
            _install([npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"], self._place)
            _mark_installed(self._place, self._lock)

    def setup(self) -> Sequence[str] | None:
        return None

    def api(self, port: int) -> Sequence[str]:
        return [self._node(), str(self._place / "server.mjs"), str(port)]

    def worker(self) -> Sequence[str]:
        return [self._node(), str(self._place / "worker.mjs")]

    def environment(self) -> Mapping[str, str]:
        return {"NODE_ENV": "production"}

    @property
    def _place(self) -> Path:
        return INSTALLED / self.folder

    @property
    def _lock(self) -> Path:
        return HERE / self.folder / "package-lock.json"

    def _node(self) -> str:
        for path in (self._place / "node_modules").glob("node-*/bin/node"):
            return str(path)
        raise NotInstallable(f"{self.folder} is not prepared, or there is no Node for this machine")


@attrs.frozen
class PythonEnvironment:
    """A virtual environment of this interpreter's, with what ``requirements.txt`` of a folder pins."""

    folder: str

    def locked(self) -> Mapping[str, str]:
        return dict(_PIN.findall(self._lock.read_text(encoding="utf-8")))

    def prepare(self, say: Callable[[str], None]) -> None:
        """Install it unless that is done. Raises NotInstallable."""
        if _is_installed(self._place, self._lock):
            return
        say(f"installing {self.folder} (pip)")
        shutil.rmtree(self._place, ignore_errors=True)
        _install([sys.executable, "-m", "venv", str(self._place)], HERE)
        pip = [self.python(), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        _install([*pip, "install", "--require-hashes", "-r", str(self._lock)], HERE)
        _mark_installed(self._place, self._lock)

    def python(self) -> str:
        """The path of its interpreter. Raises NotInstallable if it has none."""
        python = self._place / "bin" / "python"
        if not python.exists():
            raise NotInstallable(f"{self.folder} is not prepared")
        return str(python)

    @property
    def _place(self) -> Path:
        return INSTALLED / self.folder

    @property
    def _lock(self) -> Path:
        return HERE / self.folder / "requirements.txt"


@attrs.frozen
class PythonProject:
    """``app.py`` under uvicorn and a worker, in a virtual environment of this interpreter's."""

    folder: str
    work: Sequence[str] = ("worker.py",)  # what python is given, in the peer's folder
    make_tables: Sequence[str] | None = None

    def locked(self) -> Mapping[str, str]:
        return self._environment.locked()

    def prepare(self, say: Callable[[str], None]) -> None:
        self._environment.prepare(say)

    def setup(self) -> Sequence[str] | None:
        return self.make_tables and self._run(self.make_tables)

    def api(self, port: int) -> Sequence[str]:
        serve = ["-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", str(port)]
        fast = ["--loop", "uvloop", "--http", "httptools"]
        return self._run([*serve, *fast, "--no-access-log", "--log-level", "warning"])

    def worker(self) -> Sequence[str]:
        return self._run(self.work)

    def environment(self) -> Mapping[str, str]:
        return {"PYTHONPATH": f"{HERE / self.folder}:{HERE / 'python'}"}

    @property
    def _environment(self) -> PythonEnvironment:
        return PythonEnvironment(self.folder)

    def _run(self, arguments: Sequence[str]) -> Sequence[str]:
        first, *rest = arguments
        script = str(HERE / self.folder / first) if first.endswith(".py") else first
        return [self._environment.python(), script, *rest]


def _install(command: Sequence[str], place: Path) -> None:
    done = subprocess.run(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise NotInstallable(f"{' '.join(command[:4])} failed:\n{done.stdout.strip()[:2000]}")


def _is_installed(place: Path, lock: Path) -> bool:
    stamp = place / _STAMP
    return stamp.exists() and stamp.read_text(encoding="utf-8") == _digest(lock)


def _mark_installed(place: Path, lock: Path) -> None:
    (place / _STAMP).write_text(_digest(lock), encoding="utf-8")


def _digest(lock: Path) -> str:
    """What the stamp says: a changed lock, or another interpreter, is installed anew."""
    return f"{hashlib.sha256(lock.read_bytes()).hexdigest()} {sys.version}"
