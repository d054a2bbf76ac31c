"""The hot path's own way to PostgreSQL: server-side parameters, prepared statements and COPY on
the connection (and in the transaction) that Django holds."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from struct import pack
from typing import Any

import psycopg
from django.db import connection

# Advisory locks are numbered by what they guard, and by schema, so that regions do not meet.
ADVISORY_LOCK = "SELECT pg_advisory_xact_lock(%(guard)s, hashtext(current_schema()))"
BLOCK_FEED = 7001
PARTITIONS = 7002

Cursor = psycopg.Cursor[Any]

NULL = r"\N"  # in the lines of COPY

# COPY in binary: a head, rows, an end. A row is the number of its fields (2 bytes), then each field
# behind its length (4 bytes); a time is a whole number of microseconds.
COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = b"\xff\xff"
COPY_NULL = pack("!i", -1)
COPY_ZERO = datetime(2000, 1, 1, tzinfo=UTC)  # of times and days
MICROSECOND = timedelta(microseconds=1)

TIMESTAMPTZ = psycopg.adapters.types["timestamptz"].oid
INT8 = psycopg.adapters.types["int8"].oid


@contextmanager
def fast_cursor() -> Iterator[Cursor]:
    """A plain psycopg cursor on Django's connection, with binary results; its errors are raised
    as Django's. Times come as UTC, by psycopg's own loader: Django's is ten times slower."""
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        cursor.format = psycopg.pq.Format.BINARY
        loader = psycopg.adapters.get_loader(TIMESTAMPTZ, cursor.format)
        assert loader is not None  # one of psycopg's own
        cursor.adapters.register_loader(TIMESTAMPTZ, loader)
        yield cursor


@contextmanager
def instants_as_numbers(cursor: Cursor) -> Iterator[Cursor]:
    """A cursor beside a fast one, whose times come as `copied_time` makes them, without objects."""
    with psycopg.Cursor(cursor.connection) as numbers:
        numbers.format = psycopg.pq.Format.BINARY
        loader = psycopg.adapters.get_loader(INT8, numbers.format)
        assert loader is not None  # one of psycopg's own
        numbers.adapters.register_loader(TIMESTAMPTZ, loader)
        yield numbers


def hand_back() -> None:
    """Give this thread's connection back to the pool; past Django's request cycle nobody else
    does. A transaction that is open, as around a test, keeps it."""
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()


def copy_lines(cursor: Cursor, *, table: str, columns: str, lines: Iterable[str]) -> None:
    """Append tab-separated lines to a table of ours; the caller escapes what is not a number."""
    body = "\n".join(lines)
    if body:
        with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
            copy.write(body + "\n")


def copy_rows(cursor: Cursor, *, table: str, columns: str, rows: Iterable[bytes]) -> None:
    """Append binary rows to a table of ours; half the work of lines, for the tables that grow."""
    body = b"".join(rows)
    if body:
        statement = f"COPY {table} ({columns}) FROM STDIN (FORMAT binary)"
        with cursor.copy(statement) as copy:
            copy.write(b"".join((COPY_HEAD, body, COPY_END)))


def copied_text(text: str) -> bytes:
    """A text as a field of a binary row."""
    encoded = text.encode()
    return pack("!i", len(encoded)) + encoded


def copied_time(instant: datetime) -> int:
    """An aware instant as binary rows hold it: microseconds since 2000."""
    return (instant - COPY_ZERO) // MICROSECOND


def time_of(number: int) -> datetime:
    """The instant that `copied_time` made this number of."""
    return COPY_ZERO + number * MICROSECOND


def array(numbers: Iterable[int]) -> str:
    """Whole numbers as PostgreSQL writes an array: a list takes psycopg ten times as long."""
    return f"{{{','.join(map(str, numbers))}}}"
