"""Named turns: transactions that name the same turn run one after the other."""

from django.db import connection

# Takes the lock of a name until the transaction ends; regions are schemas, each with its own locks.
TAKE_TURN = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ':' || %(name)s, 0))"


def take_turn(name: str) -> None:
    """Wait (within lock_timeout) until no other transaction holds the turn of this name."""
    assert connection.in_atomic_block, "a turn ends with its transaction, so it needs one"
    with connection.cursor() as cursor:
        cursor.execute(TAKE_TURN, {"name": name})
