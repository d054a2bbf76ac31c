"""Who needs the embedded servers holds a lease; the last one to let go stops them."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from config.local.layout import Layout, make_private
from config.local.postgres import EmbeddedPostgres
from config.local.process import ServerFailed
from config.local.valkey import EmbeddedValkey

LOCK_SECONDS = 360  # longer than a server's longest start


class LocalServers:
    """The embedded servers of one data folder, shared by every process that holds a lease.

    The kernel drops a dead process's lease, so kill -9 leaves no false owner behind. Starting, and
    stopping when no lease is left, happen under one exclusive lock, so nobody starts twice and
    nobody stops what another has just begun to use.
    """

    def __init__(self, layout: Layout, *, postgres: bool = True, valkey: bool = True) -> None:
        self.layout = layout
        self.servers: list[EmbeddedPostgres | EmbeddedValkey] = []
        if postgres:
            self.servers.append(EmbeddedPostgres(layout))
        if valkey:
            self.servers.append(EmbeddedValkey(layout))
        self._lease: int | None = None
        self._holders = 0

    def acquire(self) -> None:
        """Take a lease and have the servers up; errors: ServerFailed, PermissionError.

        Within one process it may be taken several times; each needs its release.
        """
        self._holders += 1
        if not self.servers or self._lease is not None:
            return
        make_private(self.layout.var, mode=0o755)
        lease = os.open(self.layout.lease, os.O_RDWR | os.O_CREAT, 0o600)
        _lock(lease, fcntl.LOCK_SH, self.layout.lease)
        self._lease = lease
        try:
            with self._start_lock():  # also waits for one who is just starting them
                for server in self.servers:
                    server.start()
        except BaseException:
            self.release()
            raise

    def ensure_up(self) -> list[str]:
        """Start what is down; returns the names of what it had to start."""
        if all(server.is_up() for server in self.servers):
            return []
        with self._start_lock():
            down = [server for server in self.servers if not server.is_up()]
            for server in down:
                server.start()
        return [server.name for server in down]

    def release(self) -> None:
        """Give the lease back; the last one stops the servers."""
        self._holders -= 1
        if self._lease is None or self._holders:
            return
        lease, self._lease = self._lease, None
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # somebody else still uses them
        else:
            with self._start_lock():
                for server in reversed(self.servers):
                    server.stop()
        finally:
            os.close(lease)

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        handle = os.open(self.layout.start_lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(handle, fcntl.LOCK_EX, self.layout.start_lock)
            yield
        finally:
            os.close(handle)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


@cache
def local_servers() -> LocalServers:
    """Those servers that the settings leave to us; none when both are given from outside."""
    from django.conf import settings

    return LocalServers(
        settings.LAYOUT, postgres=settings.EMBEDDED_POSTGRES, valkey=settings.EMBEDDED_VALKEY
    )


def _lock(handle: int, kind: int, path: Path) -> None:
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise ServerFailed(f"waited {LOCK_SECONDS} s for {path}; who holds it?") from None
            time.sleep(0.05)
