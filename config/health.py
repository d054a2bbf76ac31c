"""Is the process up (/healthz), and can it do its work (/readyz)?"""

import logging
from collections.abc import Callable

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache

from config.celery import app

BROKER_SECONDS = 2
logger = logging.getLogger(__name__)
# Once applied, migrations stay applied while this process lives; looking again costs seconds.
_migrated = False


class NotReady(Exception):
    """A part that is missing; the message says what to do."""


@never_cache
def healthz(request: HttpRequest) -> JsonResponse:
    """200 while the process answers at all; asks nothing of others."""
    return JsonResponse({"status": "ok"})


@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when database, migrations and broker are there, else 503; names the state of each."""
    checks: dict[str, Callable[[], None]] = {
        "database": _check_database,
        "migrations": _check_migrations,
        "broker": _check_broker,
    }
    parts = {name: _state(name, check) for name, check in checks.items()}
    ready = all(state == "ok" for state in parts.values())
    body = {"status": "ok" if ready else "unavailable", "parts": parts}
    return JsonResponse(body, status=200 if ready else 503)


def _state(name: str, check: Callable[[], None]) -> str:
    try:
        check()
    except NotReady as missing:
        return str(missing)
    except Exception as error:  # whatever a driver raises, this part is not there
        logger.warning("%s is not ready: %s", name, error)
        return "unreachable"
    return "ok"


def _check_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _check_migrations() -> None:
    global _migrated
    if not _migrated:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise NotReady("behind; run manage.py migrate")
        _migrated = True


def _check_broker() -> None:
    with app.connection_for_read() as broker:
        broker.ensure_connection(max_retries=1, interval_start=0, timeout=BROKER_SECONDS)
