"""A damaged database is served intact or refused in clear words: never empty, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.murder.corruption import verdicts
from tests.murder.corruption_damage import Damage
from tests.murder.corruption_image import NAME, Image, make_image
from tests.murder.corruption_rounds import INTACT, LOST, REFUSED, open_damaged, serve_damaged

pytestmark = [pytest.mark.proof, pytest.mark.slow]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return make_image(tmp_path_factory.mktemp("image"), 90)


def test_undamaged_files_are_intact(image: Image, tmp_path: Path) -> None:
    """A truncation that cuts nothing off: what all rounds are compared with holds by itself."""
    size = (image.place / NAME).stat().st_size
    assert open_damaged(image, Damage("", "truncate", size), tmp_path / "a").outcome == INTACT


def test_random_damage_is_refused_or_harmless(image: Image, tmp_path: Path) -> None:
    found = list(verdicts(image, range(30), tmp_path, open_damaged))
    assert [str(verdict) for verdict in found if not verdict.held] == []
    assert {verdict.outcome for verdict in found} >= {INTACT, REFUSED}


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_server_refuses_when_a_file_is_gone(image: Image, tmp_path: Path, suffix: str) -> None:
    verdict = serve_damaged(image, Damage(suffix, "delete"), tmp_path / "a")
    assert verdict.outcome == REFUSED, verdict


def test_a_server_serves_without_the_files_it_can_do_without(image: Image, tmp_path: Path) -> None:
    verdict = serve_damaged(image, Damage("-shm", "delete"), tmp_path / "a")
    assert verdict.outcome == INTACT, verdict


def test_without_the_lock_file_nobody_would_notice(image: Image, tmp_path: Path) -> None:
    """What SQLite alone makes of a -wal file that is gone: this check can fail."""
    (tmp_path / "known").mkdir()
    without = Image(tmp_path / "known", image.rows)
    for suffix in ("", "-wal", "-shm"):
        name = f"{NAME}{suffix}"
        (without.place / name).write_bytes((image.place / name).read_bytes())
    (without.place / f"{NAME}.lock").touch()
    verdict = open_damaged(without, Damage("-wal", "delete"), tmp_path / "a")
    assert verdict.outcome == LOST, verdict
