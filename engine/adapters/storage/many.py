"""Statements about many rows. SQLAlchemy renders each for one row, once; the text of that row is
then repeated, and the driver is given all the values.

A driver lets other threads run while its database works, and may wait long to be let in again: one
statement about a hundred rows waits once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import attrs
import sqlalchemy as sa

PARAMETERS_MAX = 1_000
ROWS_MAX = 250
CHARACTERS_MAX = 512 * 1024
"""Of one statement, though one row may have more characters. Databases limit the first two, and
longer ones save nothing; the driver copies all values before it begins."""

Row: TypeAlias = Sequence[Any]
Convert: TypeAlias = Callable[[Any], Any]


@attrs.frozen(eq=False)
class Many:
    """A statement about any number of rows, each of them a sequence of ``width`` values."""

    before: str
    row: str
    between: str
    after: str
    width: int
    converts: tuple[tuple[int, Convert], ...]  # what the dialect does to values, by column
    texts: tuple[int, ...]  # the columns whose values may be long

    @property
    def rows_max(self) -> int:
        """The most rows of one statement."""
        return min(ROWS_MAX, PARAMETERS_MAX // self.width)

    def parts(self, rows: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
        """The texts that say it of all these rows, each with its values."""
        start = 0
        while start < len(rows):
            part = rows[start : self._end(rows, start)]
            start += len(part)
            values = [value for row in part for value in row]
            for column, convert in self.converts:
                values[column :: self.width] = map(convert, values[column :: self.width])
            yield _text(self, len(part)), values

    def _end(self, rows: Sequence[Row], start: int) -> int:
        """Where the part that begins there ends."""
        most = min(start + self.rows_max, len(rows))
        left = CHARACTERS_MAX
        for end in range(start, most):
            row = rows[end]
            left -= sum([len(row[column] or "") for column in self.texts])
            if left < 0 and end > start:
                return end
        return most


@lru_cache(maxsize=1024)
def _text(many: Many, rows: int) -> str:
    return many.before + many.between.join([many.row] * rows) + many.after


def given(name: str, **columns: sa.Column[Any]) -> sa.Subquery:
    """A row of parameters as a table, for ``many``: named, with columns typed as these are."""
    return sa.select(*(_parameter(key, one) for key, one in columns.items())).subquery(name)


def _parameter(key: str, column: sa.Column[Any]) -> sa.Label[Any]:
    return sa.bindparam(f"given_{key}", type_=column.type).label(key)


def inserting(table: sa.Table, dialect: sa.Dialect) -> Many:
    """Insert rows, values as the table's columns."""
    before, values, row = str(sa.insert(table).compile(dialect=dialect)).partition("VALUES ")
    columns = list(table.columns)
    return _many((before + values, row, ", ", ""), columns, dialect)


def many(statement: sa.UpdateBase, of: sa.Subquery, dialect: sa.Dialect) -> Many:
    """A statement about one ``given`` row, for many. It has no other parameters."""
    whole, row = (str(one.compile(dialect=dialect)) for one in (statement, of.element))
    before, found, after = whole.partition(row)
    assert found, f"{row} not in {whole}"  # noqa: S101  # whatever the dialect
    return _many((before, row, " UNION ALL ", after), list(of.c), dialect)


def _many(
    said: tuple[str, str, str, str], columns: Sequence[sa.ColumnElement[Any]], dialect: sa.Dialect
) -> Many:
    texts = tuple(n for n, one in enumerate(columns) if isinstance(one.type, sa.UnicodeText))
    return Many(*said, len(columns), _converts(columns, dialect), texts)


def converter(column: sa.ColumnElement[Any], dialect: sa.Dialect, *, back: bool = False) -> Convert:
    """What the dialect does to values of this column, on their way there or back."""
    kind = column.type.dialect_impl(dialect)
    found = kind.result_processor(dialect, None) if back else kind.bind_processor(dialect)
    return found or _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


def _converts(
    columns: Sequence[sa.ColumnElement[Any]], dialect: sa.Dialect
) -> tuple[tuple[int, Convert], ...]:
    found = enumerate(converter(one, dialect) for one in columns)
    return tuple((n, convert) for n, convert in found if convert is not _as_it_is)
