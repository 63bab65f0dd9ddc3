"""One SQLAlchemy connection, and what is asked and told over it. The same for all dialects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa

from engine.core.task import TaskId
from engine.errors import StoreError

from . import statements as say
from .many import Many, Row

Translate: TypeAlias = Callable[[Exception], StoreError | None]


class Session:
    """A connection that speaks of trouble in our errors."""

    def __init__(self, connection: sa.Connection, translate: Translate) -> None:
        self.connection = connection
        self._translate = translate

    def rows(self, statement: sa.Executable, values: Mapping[str, Any] | None = None) -> list[Any]:
        """Every row of the answer."""
        try:
            return list(self.connection.execute(statement, values).all())
        except Exception as error:
            raise self._ours(error) from error

    def change(
        self, statement: sa.Executable, values: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> int:
        """How many rows were changed. With a sequence, once for each of its members."""
        try:
            return self.connection.execute(statement, values).rowcount
        except Exception as error:
            raise self._ours(error) from error

    def write(self, statement: Many, rows: Sequence[Row]) -> int:
        """How many rows were changed. Past SQLAlchemy, whose part takes longer than the database."""
        changed = 0
        try:
            cursor = self.connection.connection.cursor()
            for text, values in statement.parts(rows):
                cursor.execute(text, values)
                changed += cursor.rowcount
        except Exception as error:
            raise self._ours(error) from error
        return changed

    def look_up(self, task_id: TaskId) -> Row | None:
        """The task's row, live or archived. Past SQLAlchemy, too, and a transaction in itself."""
        lookup = say.look_up(self.connection.dialect)
        try:
            known = lookup.id_to(task_id)
            cursor = self.connection.connection.cursor()
            cursor.execute(lookup.text, (known, known))
            found = cursor.fetchall()
        except Exception as error:
            raise self._ours(error) from error
        return (lookup.id_from(found[0][0]), *found[0][1:]) if found else None

    def _ours(self, error: Exception) -> Exception:
        return self._translate(error) or error
