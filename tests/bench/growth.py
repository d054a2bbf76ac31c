"""Ingest into a database that holds 20 million events, against one that holds none."""

import random
import shutil

import psycopg
from django.conf import settings

from accounts.keys import issue_key
from accounts.models import ApiKey
from config import clock
from tests.bench import bodies, world
from tests.bench.figures import Figure, Run, Skipped, interleave
from tests.bench.ingest import Site, check, send, site, use
from tests.bench.load import Load, Script, drive
from usage import periods

EVENTS = 20_000_000
STEP = 1_000_000  # events a statement
DAYS = 30  # that they are spread over, before today
BIG, SMALL = "bench_big", "bench"
READERS = 50  # subscribers who ask for their balance
FREE_GIB = 30  # what must be free: tables, indexes, their journal and the sorting

# Loaded without indexes and triggers, as a restore would; the amounts are set to what the entries
# come to, and the check after the run proves it.
UNINDEXED = """
    SET session_replication_role = replica;
    SET synchronous_commit = off;
    SET maintenance_work_mem = '1GB';
    ALTER TABLE usage_eventkey DROP CONSTRAINT usage_eventkey_pkey;
    DROP INDEX usage_event_subscriber_time;
    DROP INDEX usage_ledger_bucket;
    CREATE TABLE paying AS
        SELECT bucket.subscriber_id, MIN(bucket.id) AS bucket_id
          FROM usage_bucket AS bucket WHERE bucket.subscriber_id IS NOT NULL
         GROUP BY bucket.subscriber_id;
    CREATE INDEX ON paying (subscriber_id);
    ANALYZE paying;
"""
INDEXED = """
    ALTER TABLE usage_eventkey ADD PRIMARY KEY (key);
    CREATE INDEX usage_event_subscriber_time ON usage_usageevent (subscriber_id, occurred_at);
    CREATE INDEX usage_ledger_bucket ON usage_ledgerentry (bucket_id, id);
    DROP TABLE paying;
"""

# Batches of a thousand; all of one batch are of one day. `n` counts events from 0.
BATCHES = """
    INSERT INTO usage_usagebatch (
        id, node_id, kind, received_at, received, accepted, duplicate, conflict, rejected,
        accepted_mt, debited_mt, overage_mt, uncovered_mt)
    SELECT batch.n, 1, 'events',
           %(today)s::timestamptz - make_interval(days => 1 + batch.n %% %(days)s),
           1000, 1000, 0, 0, 0, 1000000000, 1000000000, 0, 0
      FROM generate_series(1, %(batches)s::int) AS batch (n)
"""
TALLIES = """
    INSERT INTO usage_usagetally (
        batch_id, day, received, accepted, duplicate, conflict, rejected,
        accepted_mt, debited_mt, overage_mt, uncovered_mt)
    SELECT id, (received_at AT TIME ZONE 'Asia/Shanghai')::date, received, accepted, 0, 0, 0,
           accepted_mt, debited_mt, 0, 0
      FROM usage_usagebatch
"""
# hashint8 scatters the subscribers, so that neighbours in time are not neighbours in the index.
ROWS = """
    CREATE TEMPORARY TABLE made ON COMMIT DROP AS
    SELECT (1 + one.n / 1000) * 16384 + one.n %% 1000 AS id,
           1 + one.n / 1000 AS batch_id,
           'chatcmpl-' || md5(one.n::text) AS event_id,
           1 + abs(hashint8(one.n)::bigint) %% %(subscribers)s AS subscriber_id,
           %(today)s::timestamptz - make_interval(days => 1 + (1 + one.n / 1000)::int %% %(days)s)
               + make_interval(secs => (one.n %% 80000)::int) AS occurred_at
      FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS one (n);
"""
KEYS = """
    INSERT INTO usage_eventkey (key, content, day)
    SELECT 'bench/n1'::bytea || '\\x00'::bytea || convert_to(made.event_id, 'UTF8'),
           decode(md5(made.id::text), 'hex'), made.occurred_at::date
      FROM made
"""
USAGE_EVENTS = """
    INSERT INTO usage_usageevent (
        id, batch_id, node_id, source, event_id, subscriber_id, model_id, weight_id, occurred_at,
        input_tokens, cached_tokens, output_tokens, reasoning_tokens, mt, late)
    SELECT made.id, made.batch_id, 1, 'bench/n1', made.event_id, made.subscriber_id, 1, 1,
           made.occurred_at, 700, 0, 300, 0, 1000000, false
      FROM made
"""
DEBITS = """
    INSERT INTO usage_ledgerentry (bucket_id, subscriber_id, kind, amount_mt, event_id, recorded_at)
    SELECT paying.bucket_id, made.subscriber_id, 'debit', -1000000, made.id, made.occurred_at
      FROM made
      JOIN paying ON paying.subscriber_id = made.subscriber_id
"""
# What was used had been granted, so every bucket still holds what it held.
GRANTS = """
    INSERT INTO usage_ledgerentry (bucket_id, subscriber_id, kind, amount_mt, recorded_at)
    SELECT entry.bucket_id, MIN(entry.subscriber_id), 'grant', -SUM(entry.amount_mt), %(today)s
      FROM usage_ledgerentry AS entry
     WHERE entry.kind = 'debit'
     GROUP BY entry.bucket_id
"""
GRANTED = """
    UPDATE usage_bucket AS bucket
       SET granted_mt = entries.granted_mt
      FROM (SELECT entry.bucket_id, SUM(entry.amount_mt) AS granted_mt
              FROM usage_ledgerentry AS entry
             WHERE entry.kind = 'grant'
             GROUP BY entry.bucket_id) AS entries
     WHERE entries.bucket_id = bucket.id AND bucket.granted_mt <> entries.granted_mt
"""


def growth_20m(run: Run) -> Figure:
    """Two databases of one server, each behind its own web server, in turn."""
    free = shutil.disk_usage(settings.LAYOUT.var).free // 2**30
    if free < FREE_GIB:
        raise Skipped(f"needs {FREE_GIB} GiB of free disk, there are {free}")
    world.copy_of_world(BIG)
    try:
        with world.connect(BIG) as connection:
            fill(connection, run)
        with site(BIG, fresh=False) as big, site(SMALL) as small:
            for at in (big, small):
                send(at, bodies.uniform, seconds=3 * run.seconds)
            figure = interleave(
                run,
                lambda: send(big, bodies.uniform, seconds=run.seconds),
                lambda: send(small, bodies.uniform, seconds=run.seconds),
                unit="events/s",
            )
            slow = [1000 * balances(at, run.seconds).percentile(0.99) for at in (big, small)]
        figure.notes.append(
            f"/me/balance, four clients: p99 {slow[0]:.1f} ms with 20 million events, "
            f"{slow[1]:.1f} ms with none"
        )
        with world.connect(BIG) as connection:
            figure.notes.append(check(connection))
        return figure
    finally:
        world.drop(BIG)


def balances(at: Site, seconds: float) -> Load:
    """Subscribers who look at their balance, four at a time."""
    use(at.database)
    now = clock.now()
    readers = bodies.uniform(READERS)
    kind = ApiKey.Kind.SUBSCRIBER
    tokens = [issue_key(kind=kind, subscriber_id=one, now=now)[1] for one in readers]
    use(SMALL)

    def looking() -> Script:
        while True:
            yield bodies.get("/api/v1/me/balance", token=random.choice(tokens))

    return drive(at.port, [looking() for _ in range(4)], seconds=seconds)


def fill(connection: psycopg.Connection[tuple[object, ...]], run: Run) -> None:
    """Put 20 million events with their keys and debits into the world, as if taken in."""
    about = {
        "batches": EVENTS // 1000,
        "days": DAYS,
        "subscribers": world.SUBSCRIBERS,
        "today": periods.day_start(periods.day_of(clock.now())),
    }
    connection.execute(UNINDEXED.encode())
    connection.execute(BATCHES, about)
    connection.execute(TALLIES)
    for first in range(0, EVENTS, STEP):
        step = about | {"first": first, "last": min(first + STEP, EVENTS) - 1}
        with connection.transaction():
            connection.execute(ROWS, step)
            for statement in (KEYS, USAGE_EVENTS, DEBITS):
                connection.execute(statement)
        if first % (5 * STEP) == 0:
            run.say(f"  {first + STEP:,} events are loaded")
    connection.execute(GRANTS, about)
    connection.execute(GRANTED)
    connection.execute(INDEXED.encode())
    connection.execute("SELECT setval('usage_batch_id', %(batches)s::bigint + 1)", about)
    run.say("  indexes are built")
    connection.execute("VACUUM (ANALYZE, FREEZE)")
    connection.execute("CHECKPOINT")
    row = connection.execute("SELECT pg_size_pretty(pg_database_size(current_database()))")
    run.say(f"  loaded: {row.fetchone()}")
