"""Twenty million events in a copy of the world, as they would lie there had they been taken in.

They are loaded without indexes and triggers, as a restore would; amounts are set to what the
entries come to, and the check after the run proves it. The index over the keys is built as loose
as random insertions leave it (69 % full), unless ids are ordered.
"""

from collections.abc import Callable
from datetime import timedelta

from config import clock
from tests.bench import bodies, world
from tests.bench.ingest import use
from usage import partitions
from usage.identity import CONTENT_BYTES, key_of

SOURCE = "bench/n1"  # as the site of the benchmarks has it
EVENTS = 20_000_000
STEP = 1_000_000  # events a statement
DAYS = 60  # up to now, that they are spread over
MT = 10_000  # an event; so little that nobody has used most of what they have

UNINDEXED = """
    SET session_replication_role = replica;
    SET statement_timeout = 0;
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
    ALTER TABLE usage_eventkey ADD PRIMARY KEY (key) WITH (fillfactor = {fill});
    ALTER INDEX usage_eventkey_pkey RESET (fillfactor);
    CREATE INDEX usage_event_subscriber_time ON usage_usageevent (subscriber_id, occurred_at);
    CREATE INDEX usage_ledger_bucket ON usage_ledgerentry (bucket_id, id);
    DROP TABLE paying;
"""

# Batches of a thousand. `n` counts events from 0; hashint8 scatters the subscribers, so that
# neighbours in time are not neighbours in the index. Ids are as bodies.new_id makes them.
ROWS = """
    CREATE TEMPORARY TABLE made ON COMMIT DROP AS
    SELECT (1 + one.n / 1000) * 16384 + one.n %% 1000 AS id,
           1 + one.n / 1000 AS batch_id,
           CASE WHEN %(ordered)s
                THEN 'req-' || lpad(to_hex((extract(epoch FROM used.at) * 1000000000)::bigint),
                                    16, '0') || '-' || left(md5(one.n::text), 6)
                ELSE 'chatcmpl-' || md5(one.n::text)
            END AS event_id,
           1 + abs(hashint8(one.n)::bigint) %% %(subscribers)s AS subscriber_id,
           used.at AS occurred_at
      FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS one (n)
     CROSS JOIN LATERAL (SELECT %(start)s::timestamptz + one.n * %(every)s::interval) AS used (at)
"""
KEYS = """
    INSERT INTO usage_eventkey (key, content, day)
    SELECT CASE WHEN %(ordered)s THEN %(tag)s::bytea || convert_to(made.event_id, 'UTF8')
                ELSE decode(right(made.event_id, 32), 'hex') || %(tag)s::bytea
            END,
           substr(decode(md5(made.id::text), 'hex'), 1, %(content)s),
           (made.occurred_at AT TIME ZONE 'Asia/Shanghai')::date
      FROM made
     ORDER BY made.id
"""
USAGE_EVENTS = """
    INSERT INTO usage_usageevent (
        id, batch_id, node_id, source, event_id, subscriber_id, model_id, weight_id, occurred_at,
        input_tokens, cached_tokens, output_tokens, reasoning_tokens, mt, late)
    SELECT made.id, made.batch_id, 1, %(source)s, made.event_id, made.subscriber_id, 1, 1,
           made.occurred_at, 7, 0, 3, 0, %(mt)s, false
      FROM made
     ORDER BY made.id
"""
DEBITS = """
    INSERT INTO usage_ledgerentry (bucket_id, subscriber_id, kind, amount_mt, event_id, recorded_at)
    SELECT paying.bucket_id, made.subscriber_id, 'debit', -%(mt)s, made.id, made.occurred_at
      FROM made
      JOIN paying ON paying.subscriber_id = made.subscriber_id
     ORDER BY made.id
"""
TALLIES = """
    INSERT INTO usage_usagetally (
        batch_id, day, received, accepted, duplicate, conflict, rejected,
        accepted_mt, debited_mt, overage_mt, uncovered_mt)
    SELECT made.batch_id, (made.occurred_at AT TIME ZONE 'Asia/Shanghai')::date,
           COUNT(*), COUNT(*), 0, 0, 0, COUNT(*) * %(mt)s, COUNT(*) * %(mt)s, 0, 0
      FROM made
     GROUP BY 1, 2
     ORDER BY 1, 2
"""
BATCHES = """
    INSERT INTO usage_usagebatch (
        id, node_id, kind, received_at, received, accepted, duplicate, conflict, rejected,
        accepted_mt, debited_mt, overage_mt, uncovered_mt)
    SELECT made.batch_id, 1, 'events', MAX(made.occurred_at), COUNT(*), COUNT(*), 0, 0, 0,
           COUNT(*) * %(mt)s, COUNT(*) * %(mt)s, 0, 0
      FROM made
     GROUP BY made.batch_id
     ORDER BY made.batch_id
"""
# What was used had been granted, so every bucket still holds what it held.
GRANTS = """
    INSERT INTO usage_ledgerentry (bucket_id, subscriber_id, kind, amount_mt, recorded_at)
    SELECT entry.bucket_id, MIN(entry.subscriber_id), 'grant', -SUM(entry.amount_mt), %(start)s
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
SIZES = """
    SELECT pg_size_pretty(pg_database_size(current_database())),
           pg_size_pretty(pg_relation_size('usage_eventkey_pkey'))
"""


def make(database: str, say: Callable[[str], None], *, events: int = EVENTS) -> str:
    """Make `database` anew with so many stored events, all vacuumed; says how large it is."""
    world.copy_of_world(database)
    now = clock.now()
    start = now - timedelta(days=DAYS)
    use(database)
    partitions.make_ahead(now=start, days_back=0)  # the ledger's months
    use("postgres")
    like = key_of(SOURCE, f"chatcmpl-{0:032x}")[16:]
    about = {
        "subscribers": world.SUBSCRIBERS,
        "start": start,
        "every": timedelta(days=DAYS) / events,
        "source": SOURCE,
        "mt": MT,
        "tag": key_of(SOURCE, "req-")[:-4] if bodies.ORDERED_IDS else like,
        "ordered": bodies.ORDERED_IDS,
        "content": CONTENT_BYTES,
    }
    with world.connect(database) as connection:
        connection.execute(UNINDEXED.encode())
        for first in range(0, events, STEP):
            step = about | {"first": first, "last": min(first + STEP, events) - 1}
            with connection.transaction():
                for statement in (ROWS, KEYS, USAGE_EVENTS, DEBITS, TALLIES, BATCHES):
                    connection.execute(statement, step)
            if first % (5 * STEP) == 0:
                say(f"  {first + STEP:,} events are loaded")
        connection.execute(GRANTS, about)
        connection.execute(GRANTED)
        connection.execute("SELECT setval('usage_batch_id', %s)", [events // 1000 + 1])
        connection.execute(INDEXED.format(fill=90 if bodies.ORDERED_IDS else 69).encode())
        say("  indexes are built")
        connection.execute("VACUUM (ANALYZE, FREEZE)")
        connection.execute("CHECKPOINT")
        size, index = connection.execute(SIZES).fetchone() or ("", "")
    return f"{size}, of it {index} the index over the keys"
