"""The SQL of a settlement. Built once: building a statement costs more than running it."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, bindparam, select, update

from privacy.ledger.store import state

STATE: Final = select(state)
LOCK_STATE: Final = select(state).with_for_update()
DEBIT: Final = (
    update(state)
    .where(
        state.c.last_entry == bindparam("held_entry"),
        state.c.last_hash == bindparam("held_hash"),
        state.c.spent == bindparam("held_spent"),
        state.c.draws == bindparam("held_draws"),
        state.c.budget >= bindparam("spent_after"),
        state.c.draws_budget >= bindparam("draws_after"),
    )
    .values(
        spent=bindparam("spent_after"),
        draws=bindparam("draws_after"),
        last_entry=bindparam("number"),
        last_hash=bindparam("hash"),
        head=bindparam("signed"),
    )
)

_CHUNKS: Final = (64, 32, 16, 8, 4, 2, 1)
"""Rows per statement: few statements for many rows, and few different ones to prepare."""


def insert_rows(
    connection: Connection, table: Table, rows: Sequence[Iterable[Any]], *, replace: bool = False
) -> int:
    """Inserts rows, each with a value per column; how many it inserted.

    A row whose primary key is there already is passed over; with `replace` it takes its place.
    Straight to the driver, many rows a statement: what SQLAlchemy does per value would cost more
    than the insertion.
    """
    done = start = 0
    paramstyle = connection.dialect.paramstyle
    for size in _CHUNKS:
        while len(rows) - start >= size:
            statement = _insertion(table, size, paramstyle, replace)
            values = tuple(chain.from_iterable(rows[start : start + size]))
            done += connection.exec_driver_sql(statement, values).rowcount
            start += size
    return done


def select_rows(
    connection: Connection,
    columns: Sequence[Column[Any]],
    by: Sequence[Column[Any]],
    wanted: Sequence[Sequence[Any]],
) -> list[tuple[Any, ...]]:
    """`columns`, as the driver gives them, of the rows that have one of `wanted` in `by`.

    Straight to the driver, as `insert_rows` is.
    """
    found: list[tuple[Any, ...]] = []
    paramstyle = connection.dialect.paramstyle
    for start in range(0, len(wanted), _CHUNKS[0]):
        part = list(wanted[start : start + _CHUNKS[0]])
        # One statement, the last repeated until it is full: each is a wait for other threads.
        size = min(size for size in _CHUNKS if size >= len(part))
        part.extend(part[-1:] * (size - len(part)))
        statement = _selection(tuple(columns), tuple(by), size, paramstyle)
        values = tuple(chain.from_iterable(part))
        found.extend(map(tuple, connection.exec_driver_sql(statement, values)))
    return found


@lru_cache(maxsize=128)
def _selection(
    columns: tuple[Column[Any], ...], by: tuple[Column[Any], ...], rows: int, paramstyle: str
) -> str:
    marker = "?" if paramstyle == "qmark" else "%s"
    row = f"({', '.join([marker] * len(by))})"
    values = f"VALUES {', '.join([row] * rows)}" if len(by) > 1 else ", ".join([marker] * rows)
    return (
        f"SELECT {', '.join(column.name for column in columns)} FROM {columns[0].table.name}"
        f" WHERE ({', '.join(column.name for column in by)}) IN ({values})"
    )


@lru_cache(maxsize=128)
def _insertion(table: Table, rows: int, paramstyle: str, replace: bool) -> str:
    marker = "?" if paramstyle == "qmark" else "%s"
    names = [column.name for column in table.columns]
    keys = [column.name for column in table.primary_key]
    row = f"({', '.join([marker] * len(names))})"
    others = ", ".join(f"{name} = excluded.{name}" for name in names if name not in keys)
    clash = f"({', '.join(keys)}) DO UPDATE SET {others}" if replace else "DO NOTHING"
    return (
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join([row] * rows)}"
        f" ON CONFLICT {clash}"
    )
