"""Runs a transaction again when others stood in its way or the connection was lost."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import DatabaseError, InterfaceError, connection

from config.dberrors import is_contention, is_lost_connection

T = TypeVar("T")
FIRST_WAIT_SECONDS = 0.05


def retry_transaction(fn: Callable[[], T], *, attempts: int = 4) -> T:
    """The answer of `fn`, which opens its own transaction and may run up to `attempts` times.

    `fn` must be safe to run twice with the same keys: after a lost connection nobody knows
    whether the commit happened. Deadlock, serialisation failure, lock timeout and lost connections
    are tried again; any other error, and the last failure, is raised. Inside an open transaction
    there is nothing to try again, so `fn` runs once.
    """
    if connection.in_atomic_block:
        return fn()
    for attempt in range(1, attempts + 1):
        try:
            return fn()
        except (DatabaseError, InterfaceError) as error:
            lost = is_lost_connection(error)
            if attempt == attempts or not (lost or is_contention(error)):
                raise
            if lost:
                connection.close()
            # Jitter, so that those who collided do not collide again.
            wait = FIRST_WAIT_SECONDS * 4 ** (attempt - 1)
            time.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 (not a secret)
    raise AssertionError("attempts is at least 1")
