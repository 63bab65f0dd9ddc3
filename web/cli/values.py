"""Values of options: those that may come from files, and those that must not be shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from engine import Secret


def text_or_file(value: str) -> str:
    """The value itself, or what the file holds that it names after ``@``: secrets belong in files,
    because everybody on a machine can read its command lines. Raises ``BadParameter``."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"cannot read {value[1:]}: {error.strerror}") from None
    except ValueError:
        raise click.BadParameter(f"{value[1:]} is not a text file") from None


def how_signed(secrets: Sequence[Secret]) -> str:
    """Whether calls are signed, and by which keys."""
    if not secrets:
        return "not signed"
    return f"signed, key id {' and '.join(secret.key_id for secret in secrets)}"
