"""One SQL text for both databases, over any number of rows of values.

A statement names *relations* in braces, ``{entry}``, and gets their rows when it runs. On PostgreSQL a relation is
``unnest`` over one array per column, on SQLite ``json_each`` over one JSON text; either way the text is the same for
one row and for thousands, so it is prepared once, and no limit on the number of parameters is ever met.

An array goes to PostgreSQL as the text of its literal (documentation, section 8.15.6): asyncpg asks of every element of
a list whether it is a list again, 22 times for a row of the log, which was half of a writer's work under load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import CursorResult, Table, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from fastsock.db.engine import Dialect

Rows = Sequence[Sequence[object]]


class Statement:
    """A statement; ``relations`` are, by name, the types of their columns by name: ``bigint`` or ``text``."""

    def __init__(self, sql: str, **relations: Mapping[str, str]) -> None:
        self._relations = relations
        arrays = {name: _unnest(name, columns) for name, columns in relations.items()}
        texts = {name: _json_each(name, columns) for name, columns in relations.items()}
        self._text = {"postgresql": text(sql.format_map(arrays)), "sqlite": text(sql.format_map(texts))}

    async def fetch(self, connection: AsyncConnection, **rows: Rows) -> list[tuple[Any, ...]]:
        """Run it over these rows of its relations, their values in the order of the columns; what it selects."""
        return [tuple(row) for row in await self._run(connection, rows)]

    async def count(self, connection: AsyncConnection, **rows: Rows) -> int:
        """Run it over these rows of its relations; how many rows of the database it has changed."""
        return (await self._run(connection, rows)).rowcount

    async def _run(self, connection: AsyncConnection, relations: Mapping[str, Rows]) -> CursorResult[Any]:
        dialect = connection.dialect.name
        parameters: dict[str, Any] = {}
        for name, rows in relations.items():
            columns = self._relations[name]
            if dialect == "postgresql":
                arrays = zip(*rows, strict=True) if rows else ((),) * len(columns)
                parameters |= {
                    f"{name}_{column}": _LITERALS[kind](array)
                    for (column, kind), array in zip(columns.items(), arrays, strict=True)
                }
            else:
                parameters[name] = json.dumps(rows, ensure_ascii=False)
        return await connection.execute(self._text[dialect], parameters)


def upsert(dialect: Dialect, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that may say what to do where the row is there already."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def _numbers(array: Sequence[Any]) -> str:
    """``{1,NULL,3}``."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in array]) + "}"


def _texts(array: Sequence[Any]) -> str:
    r"""``{"one",NULL,"say \"three\""}``."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in array]) + "}"


def _quoted(value: str) -> str:
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


_LITERALS = {"bigint": _numbers, "text": _texts}


def _unnest(name: str, columns: Mapping[str, str]) -> str:
    arrays = ", ".join(f"CAST(CAST(:{name}_{column} AS text) AS {kind}[])" for column, kind in columns.items())
    return f"unnest({arrays}) AS {name} ({', '.join(columns)})"


def _json_each(name: str, columns: Mapping[str, str]) -> str:
    values = ", ".join(f"json_extract(value, '$[{place}]') AS {column}" for place, column in enumerate(columns))
    return f"(SELECT {values} FROM json_each(:{name})) AS {name}"  # noqa: S608 - made of names in this package
