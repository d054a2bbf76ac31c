"""The three programs that make up a running system: web, worker and beat."""

import os
import shutil
import sys
from pathlib import Path

from django.conf import settings

from config.local.supervisor import Program

# A process either computes or waits for its transaction, which computes meanwhile. More of them
# would only make the groups of reports smaller (usage/receiving.py) and hold more in memory.
WEB_WORKERS = os.cpu_count() or 1
# A report is counted in as many parts; processes without a lane hand all of theirs over.
WEB_LANES = min(WEB_WORKERS, 8)
WEB_THREADS = 64  # of a worker; most wait for a transaction they share (usage/receiving.py)
WEB_CONNECTIONS = 11  # of a worker: three for reports, the rest for as many other requests at once
TASK_PROCESSES = 2


def all_programs(*, logs: Path | None = None) -> list[Program]:
    """Web, worker and beat as the settings want them; `logs` is a folder for their output."""
    metrics = settings.LAYOUT.var / "metrics"
    # Old counts of dead processes would be added to the new ones.
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir(parents=True)
    environment = {
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        "PYTHONUNBUFFERED": "1",
        # What this process settled on, whatever it was started with.
        "VAR_DIR": str(settings.VAR_DIR),
        "PORT": str(settings.PORT),
        "CLOCK_FILE": str(settings.CLOCK_FILE),
    }
    for_web = {
        "DATABASE_POOL": str(WEB_CONNECTIONS),
        "WEB_LANES": str(WEB_LANES),
        # Of glibc's allocator: else the many threads keep the pieces of large bodies in sixteen
        # arenas, and a process grows by a third within minutes.
        "MALLOC_ARENA_MAX": "2",
    }
    commands = {"web": web(), "worker": worker(), "beat": beat()}
    return [
        Program(
            name,
            command,
            environment | (for_web if name == "web" else {}),
            logs / f"{name}.log" if logs else None,
        )
        for name, command in commands.items()
    ]


def web() -> list[str]:
    """The web server's command line."""
    return [
        *(sys.executable, "-m", "granian", "--interface", "wsgi", "config.wsgi:application"),
        *("--host", settings.HOST, "--port", str(settings.PORT)),
        *("--workers", str(WEB_WORKERS), "--blocking-threads", str(WEB_THREADS)),
        *("--respawn-failed-workers", "--workers-kill-timeout", "8", "--no-ws"),
        *("--working-dir", str(settings.BASE_DIR)),
    ]


def worker() -> list[str]:
    """The Celery worker's command line."""
    return [
        *(sys.executable, "-m", "celery", "-q", "--workdir", str(settings.BASE_DIR)),
        *("-A", "config", "worker", "--concurrency", str(TASK_PROCESSES)),
        *("--loglevel", settings.LOG_LEVEL, "--without-gossip", "--without-mingle"),
    ]


def beat() -> list[str]:
    """The command line of Celery's timetable. One per system: two would do everything twice."""
    return [
        *(sys.executable, "-m", "celery", "-q", "--workdir", str(settings.BASE_DIR)),
        *("-A", "config", "beat", "--loglevel", settings.LOG_LEVEL, "--pidfile="),
    ]
