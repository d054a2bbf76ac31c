"""What time it is. Read at the edges (views, tasks, commands) and passed down as `now`.

Only the demo moves the clock, to live a whole month in a minute: CLOCK_FILE then names a file
with the offset from the wall clock in microseconds, which every process of the demo reads.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

# The offset as last read, and the stamp of the file it came from.
_seen: tuple[tuple[int, int, int] | None, timedelta] = (None, timedelta(0))


def now() -> datetime:
    """The present instant, in UTC."""
    wall = datetime.now(UTC)
    return wall + _offset() if settings.CLOCK_FILE else wall


def set_offset(offset: timedelta) -> None:
    """Move the clock of every process that shares CLOCK_FILE, at once."""
    path = _file()
    half = path.with_name(f"{path.name}.{os.getpid()}")
    half.write_text(str(offset // timedelta(microseconds=1)))
    half.replace(path)  # whole or not at all: a reader never sees half a number


def _file() -> Path:
    if not settings.CLOCK_FILE:
        raise ImproperlyConfigured("Set CLOCK_FILE to move the clock; only the demo should")
    if not (settings.DEBUG or settings.EMBEDDED_POSTGRES):
        raise ImproperlyConfigured("Unset CLOCK_FILE: on a real database the clock is not a toy")
    return Path(settings.CLOCK_FILE)


def _offset() -> timedelta:
    global _seen
    path = _file()
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return timedelta(0)
    stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
    if stamp != _seen[0]:
        _seen = (stamp, timedelta(microseconds=int(path.read_text())))
    return _seen[1]
