"""Care of the partitions: days of events and months of ledger made ahead, old days dropped.

A default partition catches what has no partition yet; making one takes its rows over.
"""

from datetime import date, datetime, timedelta

from django.conf import settings
from django.db import connection, transaction
from psycopg import sql

from .database import ADVISORY_LOCK, PARTITIONS, Cursor, fast_cursor
from .models import DroppedDay
from .periods import day_of, day_start, next_cycle, previous_cycle

DAYS_AHEAD = 14
MONTHS_AHEAD = 3

PARTITIONS_OF = """
    SELECT child.relname
      FROM pg_inherits AS link
      JOIN pg_class AS child ON child.oid = link.inhrelid
     WHERE link.inhparent = %(table)s::regclass
     ORDER BY child.relname
"""

# The ledger's own trigger sees what enters by the ledger; this one what is put straight into one
# partition, so that no way in leaves the buckets behind. Never do both see one statement.
MOVES_BALANCES = """
    CREATE TRIGGER ledger_moves_balances AFTER INSERT ON {part}
        REFERENCING NEW TABLE AS new_entries
        FOR EACH STATEMENT EXECUTE FUNCTION usage_apply_ledger()
"""

EVENT_TABLE = "usage_usageevent"
LEDGER_TABLE = "usage_ledgerentry"


def make_ahead(*, now: datetime, days_back: int | None = None) -> list[str]:
    """Make the partitions that events and entries may need soon; returns those that are new.

    Events: from `days_back` (EVENT_MAX_AGE_DAYS unless told) to 14 days ahead. Ledger: from last
    month to 3 months ahead. Safe to run twice or at once.
    """
    today = day_of(now)
    back = settings.EVENT_MAX_AGE_DAYS if days_back is None else days_back
    made = []
    for offset in range(-back, DAYS_AHEAD + 1):
        day = today + timedelta(days=offset)
        name = f"{EVENT_TABLE}_{day:%Y%m%d}"
        made += _make(EVENT_TABLE, name, "occurred_at", day, day + timedelta(days=1))
    month = previous_cycle(today)
    for _ahead in range(MONTHS_AHEAD + 2):
        name = f"{LEDGER_TABLE}_{month:%Y%m}"
        made += _make(LEDGER_TABLE, name, "recorded_at", month, next_cycle(month))
        month = next_cycle(month)
    return made


def _make(table: str, name: str, column: str, start: date, end: date) -> list[str]:
    if name in _existing(table):
        return []
    with transaction.atomic(), fast_cursor() as cursor:
        cursor.execute(ADVISORY_LOCK, {"guard": PARTITIONS})
        if name in _existing(table):
            return []
        _take_over(cursor, table, name, column, day_start(start), day_start(end))
    return [name]


def _take_over(
    cursor: Cursor, table: str, name: str, column: str, start: datetime, end: datetime
) -> None:
    """Create a partition; rows of its range leave the default partition for it.

    The rows go straight into the new partition, which gets its trigger afterwards: they have been
    counted.
    """
    names = {
        "parent": sql.Identifier(table),
        "spare": sql.Identifier(f"{table}_default"),
        "part": sql.Identifier(name),
        "column": sql.Identifier(column),
        "start": sql.Literal(start),
        "end": sql.Literal(end),
    }
    for statement in (
        "ALTER TABLE {parent} DETACH PARTITION {spare}",
        "CREATE TABLE {part} PARTITION OF {parent} FOR VALUES FROM ({start}) TO ({end})",
        """WITH moved AS (
               DELETE FROM {spare} WHERE {column} >= {start} AND {column} < {end} RETURNING *
           ) INSERT INTO {part} SELECT * FROM moved""",
        "ALTER TABLE {parent} ATTACH PARTITION {spare} DEFAULT",
    ):
        cursor.execute(sql.SQL(statement).format(**names))
    if table == LEDGER_TABLE:
        cursor.execute(sql.SQL(MOVES_BALANCES).format(**names))


def _existing(table: str) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(PARTITIONS_OF, {"table": table})
        return {name for (name,) in cursor.fetchall()}


def drop_old_days(*, now: datetime, limit: int = 31) -> list[date]:
    """Drop event days past EVENT_RETENTION_DAYS, keeping their totals; at most `limit` at once."""
    oldest = day_of(now) - timedelta(days=settings.EVENT_RETENTION_DAYS)
    prefix = f"{EVENT_TABLE}_"
    days = sorted(
        datetime.strptime(name.removeprefix(prefix), "%Y%m%d").date()  # noqa: DTZ007 (a name)
        for name in _existing(EVENT_TABLE)
        if name.removeprefix(prefix).isdigit()
    )
    old = [day for day in days if day < oldest][:limit]
    for day in old:
        _drop(day, now)
    return old


# What a day's partition holds, and what buckets paid of it.
TOTALS_OF_DAY = """
    SELECT COUNT(*), COALESCE(SUM(event.mt), 0)::bigint,
           (SELECT COALESCE(-SUM(entry.amount_mt), 0)
              FROM usage_ledgerentry AS entry
              JOIN {part} AS paid ON paid.id = entry.event_id
             WHERE entry.kind = 'debit')::bigint
      FROM {part} AS event
"""


@transaction.atomic
def _drop(day: date, now: datetime) -> None:
    part = sql.Identifier(f"{EVENT_TABLE}_{day:%Y%m%d}")
    with fast_cursor() as cursor:
        cursor.execute(ADVISORY_LOCK, {"guard": PARTITIONS})
        cursor.execute("SET LOCAL statement_timeout = '15min'")  # a large day is counted first
        totals = sql.SQL(TOTALS_OF_DAY).format(part=part)
        events, mt, debited_mt = cursor.execute(totals).fetchone()  # type: ignore[misc]
        DroppedDay.objects.create(
            day=day, events=events, mt=mt, debited_mt=debited_mt, dropped_at=now
        )
        cursor.execute(sql.SQL("DROP TABLE {}").format(part))


PURGE_KEYS = """
    DELETE FROM usage_eventkey
     WHERE ctid = ANY(ARRAY(
           SELECT stored.ctid FROM usage_eventkey AS stored
            WHERE stored.day < %(oldest)s
            LIMIT %(limit)s))
"""


def purge_keys(*, now: datetime, limit: int = 50_000, rounds: int = 200) -> int:
    """Forget keys that arrived more than KEY_RETENTION_DAYS ago: their events are too old to be
    accepted again. Bounded by `rounds` transactions of `limit` keys; returns how many."""
    oldest = day_of(now) - timedelta(days=settings.KEY_RETENTION_DAYS)
    purged = 0
    for _round in range(rounds):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(PURGE_KEYS, {"oldest": oldest, "limit": limit})
            count = cursor.rowcount
        purged += count
        if count < limit:
            break
    return purged
