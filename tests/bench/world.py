"""The world of the benchmarks: 100,000 subscribers with 1 to 5 buckets each, loaded by SQL.

It is built once per version of the schema and kept as a template database; every benchmark works
on a copy. The ledger is consistent: what buckets hold came by grant entries.

`python -m tests.bench.world` fills the database that BENCH_DATABASE names.
"""

import hashlib
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from psycopg import sql

from tests.bench import world_sql

SUBSCRIBERS = 100_000
BIG_POOL = 1000  # members of the first pool: the first subscribers, who draw on it first of all
SMALL_POOLS, MEMBERS = 2000, 10  # the next 20,000 subscribers
FIRST_NUMBER = 13_900_000_000
MODELS = ("telechat", "deepseek-v3.2", "glm-5")
ROOT = Path(__file__).resolve().parents[2]


def msisdn(subscriber_id: int) -> str:
    """The number of a subscriber of the world, 1 to SUBSCRIBERS."""
    return f"+86{FIRST_NUMBER + subscriber_id}"


def connect(database: str) -> psycopg.Connection[tuple[object, ...]]:
    """An autocommit connection to a database of the benchmarks' server, as its owner."""
    return psycopg.connect(
        host=str(settings.LAYOUT.sockets), user="tokenpack", dbname=database, autocommit=True
    )


def copy_of_world(database: str) -> None:
    """Make `database` anew as a copy of the world, its pages written out."""
    template = _template()
    with connect("postgres") as admin:
        drop(database)
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(database), sql.Identifier(template)
            )
        )
        admin.execute("CHECKPOINT")


def drop(database: str) -> None:
    """Remove a database, and whoever still uses it."""
    with connect("postgres") as admin:
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        admin.execute(statement.format(sql.Identifier(database)))


def _template() -> str:
    """The name of the template; it is built when this version of it is not there yet."""
    name = f"world_{_version()}"
    with connect("postgres") as admin:
        if admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            return name
        old = admin.execute("SELECT datname FROM pg_database WHERE datname LIKE 'world\\_%'")
        for (database,) in old.fetchall():
            drop(str(database))
        half = "half_world"  # a build that was killed is never taken for a whole one
        drop(half)
        admin.execute(f"CREATE DATABASE {half}")
        subprocess.run(
            [sys.executable, "-m", "tests.bench.world"],
            env=os.environ | {"BENCH_DATABASE": half},
            cwd=ROOT,
            check=True,
            timeout=600,
        )
        admin.execute(
            sql.SQL("ALTER DATABASE half_world RENAME TO {}").format(sql.Identifier(name))
        )
    return name


def _version() -> str:
    """Changes with the schema, the catalogue, this package's world, and the month."""
    from config import clock

    digest = hashlib.sha256(f"{clock.now():%Y-%m}".encode())
    here = Path(__file__).parent
    files = [*ROOT.glob("*/migrations/*.py"), *ROOT.glob("*/data/*.yaml"), *here.glob("world*.py")]
    for path in sorted([*files, *here.glob("naive/models.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def build(now: datetime) -> None:
    """Fill the empty database of the settings; `now` lies within the month of the buckets."""
    from django.core.management import call_command
    from django.db import connection

    from usage import partitions, periods

    call_command("migrate", interactive=False, run_syncdb=True, verbosity=0)
    call_command("load_catalogue", verbosity=0)
    partitions.make_ahead(now=now)
    cycle = periods.cycle_of(now)
    about: dict[str, Any] = {
        "subscribers": SUBSCRIBERS,
        "first_number": FIRST_NUMBER,
        "big_pool": BIG_POOL,
        "small_pools": SMALL_POOLS,
        "members": MEMBERS,
        "models": list(MODELS),
        "born": periods.cycle_start(periods.previous_cycle(cycle)),
        "since": periods.cycle_start(periods.previous_cycle(cycle)),
        "until": periods.cycle_end(cycle),
    }
    with connection.cursor() as cursor:
        # Facts are loaded as a restore would load them: without triggers and reference checks.
        cursor.execute("SET statement_timeout = 0; SET session_replication_role = replica")
        cursor.execute(world_sql.EXCLUSIONS)
        exclusions = cursor.fetchall()
        for table, name, _definition in exclusions:
            cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        for statement in world_sql.statements():
            cursor.execute(statement, about)
        for table, name, definition in exclusions:
            cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
        for table in world_sql.NUMBERED:
            cursor.execute(world_sql.NEXT_ID.format(table=table))
        cursor.execute(world_sql.PROVEN)
        assert cursor.fetchone() is None
        cursor.execute("VACUUM (ANALYZE, FREEZE)")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.bench.settings")
    import django

    django.setup()
    from config import clock

    build(clock.now())
