"""The real system on a data folder of its own: servers, web, worker and beat under a supervisor."""

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import requests

if TYPE_CHECKING:  # it is imported once the settings are chosen
    from config.local.supervisor import Supervisor

UP_SECONDS = 120


class Broken(Exception):
    """The system did not do in time what it must; the message says what, and where its logs are."""


def choose_settings(var: Path) -> None:
    """Settings for this process and those it starts; before Django is set up."""
    os.environ.update(
        DJANGO_SETTINGS_MODULE="config.settings",
        VAR_DIR=str(var),
        PORT=str(_free_port()),
        CLOCK_FILE=str(var / "clock"),
        LOG_LEVEL="WARNING",
        LOG_FORMAT="console",
    )
    for name in (
        "DATABASE_URL",
        "BROKER_URL",
        "CACHE_URL",
        "PUBLIC_URL",
        "REGION",
        "DATABASE_POOL",
    ):
        os.environ.pop(name, None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def make_empty(var: Path) -> None:
    """Remove what a former run left in this folder; Broken while another run uses it."""
    from config.local import layout

    lease = var / "lease.lock"
    if lease.exists():
        with lease.open() as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Broken(f"Another run is using {var}; wait for it, or stop it.") from None
    if var.exists():
        shutil.rmtree(layout.of(var).postgres, ignore_errors=True)
        shutil.rmtree(var)


@dataclass
class System:
    """What runs: its address, its supervisor (who knows the pids), its folder."""

    base: str
    supervisor: "Supervisor"
    var: Path

    def await_ready(self) -> None:
        """Wait until everything answers; Broken when it does not in time, GaveUp at once."""
        self.await_that("/readyz answers", self._is_ready)

    def await_that(
        self, what: str, done: Callable[[], bool], *, seconds: float = UP_SECONDS
    ) -> None:
        """Wait for something to become true; Broken when it does not in time."""
        until = time.monotonic() + seconds
        while not done():
            self.supervisor.wait(seconds=0)
            if time.monotonic() > until:
                raise Broken(f"{what}: not in {seconds:.0f} s; logs: {self.var / 'log'}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self.base}/readyz", timeout=5).ok
        except requests.RequestException:
            return False


@contextmanager
def running(*, with_beat: bool) -> Iterator[System]:
    """Web, worker and (if told) beat, on a migrated database that is up already."""
    from django.conf import settings
    from django.db import connections

    from config.local.programs import all_programs
    from config.local.servers import local_servers
    from config.local.supervisor import Supervisor

    connections.close_all()
    programs = all_programs(logs=settings.LAYOUT.log)
    chosen = [one for one in programs if with_beat or one.name != "beat"]
    supervisor = Supervisor(chosen, servers=local_servers())
    with supervisor:
        yield System(f"http://127.0.0.1:{settings.PORT}", supervisor, settings.VAR_DIR)
