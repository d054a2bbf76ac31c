"""The demo's own steps in the database outlast a server that is killed and started again."""

from collections.abc import Callable
from typing import TypeVar

from config.retrying import retry_transaction

T = TypeVar("T")
ATTEMPTS = 7  # over about a minute, by the growing waits in between


def patiently(step: Callable[[], T]) -> T:
    """The answer of a step that may be done twice; the last failure is raised."""
    return retry_transaction(step, attempts=ATTEMPTS)
