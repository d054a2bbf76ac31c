"""Tells database errors apart by SQLSTATE: is it worth trying again?"""

from django.db import DatabaseError, InterfaceError

# Deadlock, serialisation failure, lock not available: the same work may well pass a moment later.
CONTENTION = {"40P01", "40001", "55P03"}
# The server is stopping, starting or full.
AWAY = {"57P01", "57P02", "57P03", "53300"}


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of a database error, empty when the connection died without one."""
    return getattr(error.__cause__, "sqlstate", None) or getattr(error, "sqlstate", None) or ""


def is_contention(error: BaseException) -> bool:
    """Whether others stood in the way; nothing was written."""
    return isinstance(error, DatabaseError) and sqlstate(error) in CONTENTION


def is_lost_connection(error: BaseException) -> bool:
    """Whether the database is away, or went away; a running commit may have happened or not."""
    if not isinstance(error, DatabaseError | InterfaceError):
        return False
    state = sqlstate(error)
    if state:
        return state in AWAY or state.startswith("08")
    # psycopg reports a dead socket and an exhausted pool without a state.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"OperationalError", "InterfaceError"})
