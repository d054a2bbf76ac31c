"""Statements as one run of the program sent them, to be sent again by bare psycopg.

What differs from one call to the next (the node's name of a session, its ref, its id) is put in
anew when they are replayed, so that a recording may be replayed any number of times.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

Statement = tuple[Any, Any]  # query, parameters
OPENS = "INSERT INTO usage_quotasession"
OF_DJANGO = ("SAVEPOINT", "RELEASE", "ROLLBACK", "SET ", "BEGIN")


@dataclass
class Recording:
    """A session's calls, each a list of statements, with the values that were its own."""

    name: str
    ref: str = ""
    session_id: int = 0
    calls: list[list[Statement]] = field(default_factory=list)


@contextmanager
def recorder(into: list[Statement]) -> Iterator[None]:
    """Note every statement that psycopg sends meanwhile, but those of Django's transactions."""
    execute = psycopg.Cursor.execute

    def noting(self: Any, query: Any, params: Any = None, **kwargs: Any) -> Any:
        text = query.decode() if isinstance(query, bytes) else query
        if not (isinstance(text, str) and text.lstrip().startswith(OF_DJANGO)):
            into.append((query, params))
        return execute(self, query, params, **kwargs)

    psycopg.Cursor.execute = noting  # type: ignore[method-assign]
    try:
        yield
    finally:
        psycopg.Cursor.execute = execute  # type: ignore[method-assign]


def replay(
    connection: psycopg.Connection[Any], recording: Recording, clock: Callable[[], float]
) -> list[float]:
    """Send a session's calls again, each in a transaction; the seconds that each of them took."""
    ref = f"qs_{secrets.token_hex(12)}"
    own: dict[Any, Any] = {recording.name: secrets.token_hex(12), recording.ref: ref}
    seconds = []
    for call in recording.calls:
        started = clock()
        with connection.transaction(), connection.cursor() as cursor:
            for query, params in call:
                cursor.execute(query, _renewed(params, own))
                rows = cursor.fetchall() if cursor.description else []
                if isinstance(query, str) and OPENS in query:
                    own[recording.session_id] = rows[0][0]
        seconds.append(clock() - started)
    return seconds


def _renewed(params: Any, own: dict[Any, Any]) -> Any:
    if isinstance(params, dict):
        return {key: _renewed(value, own) for key, value in params.items()}
    if isinstance(params, tuple | list):
        return type(params)(_renewed(value, own) for value in params)
    if isinstance(params, str | int) and not isinstance(params, bool):
        return own.get(params, params)
    return params
