"""The proof that not one token was lost: each total counted twice, from independent rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.db import connection, transaction

from .database import Cursor, fast_cursor
from .periods import day_start


@dataclass(frozen=True)
class Difference:
    """One place where two counts that must agree do not."""

    rule: str
    where: str
    expected: int
    found: int


# Each query returns (where, expected, found) of what differs, and must return no row.
RULES = {
    "bucket remaining = sum of its ledger": """
        SELECT 'bucket ' || bucket.id, COALESCE(entry.amount_mt, 0)::bigint, bucket.remaining_mt
          FROM usage_bucket AS bucket
          LEFT JOIN (SELECT bucket_id, SUM(amount_mt) AS amount_mt
                       FROM usage_ledgerentry GROUP BY bucket_id) AS entry
            ON entry.bucket_id = bucket.id
         WHERE bucket.remaining_mt <> COALESCE(entry.amount_mt, 0)
         ORDER BY bucket.id LIMIT %(limit)s
    """,
    "ledger entries name a bucket": """
        SELECT 'ledger entry ' || entry.id, 1, 0
          FROM usage_ledgerentry AS entry
          LEFT JOIN usage_bucket AS bucket ON bucket.id = entry.bucket_id
         WHERE bucket.id IS NULL
         ORDER BY entry.id LIMIT %(limit)s
    """,
    "0 <= reserved <= remaining <= granted + adjusted": """
        SELECT 'bucket ' || bucket.id, bucket.granted_mt + bucket.adjusted_mt, bucket.remaining_mt
          FROM usage_bucket AS bucket
         WHERE NOT (bucket.reserved_mt BETWEEN 0 AND bucket.remaining_mt
                    AND bucket.remaining_mt <= bucket.granted_mt + bucket.adjusted_mt)
         ORDER BY bucket.id LIMIT %(limit)s
    """,
    "a void bucket is empty": """
        SELECT 'bucket ' || bucket.id, 0, bucket.remaining_mt
          FROM usage_bucket AS bucket
         WHERE bucket.remaining_mt <> 0
           AND EXISTS (SELECT 1 FROM usage_movement AS movement
                        WHERE movement.bucket_id = bucket.id AND movement.kind = 'void')
         ORDER BY bucket.id LIMIT %(limit)s
    """,
    "batch = its events and what paid for them": """
        SELECT 'batch ' || COALESCE(batch.id, event.batch_id), COALESCE(batch.accepted_mt, 0),
               COALESCE(event.mt, 0)::bigint
          FROM usage_usagebatch AS batch
          FULL JOIN (SELECT batch_id, COUNT(*) AS events, SUM(mt) AS mt
                       FROM usage_usageevent GROUP BY batch_id
                      UNION ALL
                     SELECT batch_id, 0, SUM(mt) FROM usage_amendment GROUP BY batch_id) AS event
            ON event.batch_id = batch.id
         WHERE (COALESCE(batch.accepted, 0) <> COALESCE(event.events, 0)
                OR COALESCE(batch.accepted_mt, 0) <> COALESCE(event.mt, 0))
           AND NOT EXISTS (SELECT 1 FROM usage_usagetally AS tally
                             JOIN usage_droppedday AS dropped ON dropped.day = tally.day
                            WHERE tally.batch_id = COALESCE(batch.id, event.batch_id))
         ORDER BY 1 LIMIT %(limit)s
    """,
    "day of use = its events": """
        SELECT 'day ' || COALESCE(tally.day, event.day), COALESCE(tally.mt, 0)::bigint,
               COALESCE(event.mt, 0)::bigint
          FROM (SELECT day, SUM(accepted) AS events, SUM(accepted_mt) AS mt
                  FROM usage_usagetally GROUP BY day) AS tally
          FULL JOIN (SELECT stored.day, SUM(stored.events) AS events, SUM(stored.mt) AS mt
                       FROM (SELECT (occurred_at AT TIME ZONE 'Asia/Shanghai')::date AS day,
                                    COUNT(*) AS events, SUM(mt) AS mt
                               FROM usage_usageevent GROUP BY 1
                              UNION ALL
                             SELECT (occurred_at AT TIME ZONE 'Asia/Shanghai')::date, 0, SUM(mt)
                               FROM usage_amendment GROUP BY 1
                              UNION ALL
                             SELECT day, events, mt FROM usage_droppedday) AS stored
                      GROUP BY stored.day) AS event
            ON event.day = tally.day
         WHERE COALESCE(tally.events, 0) <> COALESCE(event.events, 0)
            OR COALESCE(tally.mt, 0) <> COALESCE(event.mt, 0)
         ORDER BY 1 LIMIT %(limit)s
    """,
    "batch debits = its ledger entries, refunds taken off": """
        SELECT 'batch ' || COALESCE(batch.id, entry.batch_id), COALESCE(batch.debited_mt, 0),
               COALESCE(entry.mt, 0)::bigint
          FROM usage_usagebatch AS batch
          FULL JOIN (SELECT event_id / 16384 AS batch_id, -SUM(amount_mt) AS mt
                       FROM usage_ledgerentry WHERE kind IN ('debit', 'refund')
                      GROUP BY 1) AS entry
            ON entry.batch_id = batch.id
         WHERE COALESCE(batch.debited_mt, 0) <> COALESCE(entry.mt, 0)
         ORDER BY 1 LIMIT %(limit)s
    """,
    "batch overage = its overage rows": """
        SELECT 'batch ' || COALESCE(batch.id, overage.batch_id),
               COALESCE(batch.overage_mt + batch.uncovered_mt, 0), COALESCE(overage.mt, 0)::bigint
          FROM usage_usagebatch AS batch
          FULL JOIN (SELECT batch_id, SUM(mt) AS mt, SUM(mt) FILTER (WHERE priced) AS priced_mt
                       FROM usage_overage GROUP BY batch_id) AS overage
            ON overage.batch_id = batch.id
         WHERE COALESCE(batch.overage_mt + batch.uncovered_mt, 0) <> COALESCE(overage.mt, 0)
            OR COALESCE(batch.overage_mt, 0) <> COALESCE(overage.priced_mt, 0)
         ORDER BY 1 LIMIT %(limit)s
    """,
    "batch = its tallies": """
        SELECT 'batch ' || batch.id, batch.received, COALESCE(tally.received, 0)::bigint
          FROM usage_usagebatch AS batch
          LEFT JOIN (SELECT batch_id, SUM(received) AS received, SUM(accepted) AS accepted,
                            SUM(duplicate) AS duplicate, SUM(conflict) AS conflict,
                            SUM(accepted_mt) AS accepted_mt, SUM(debited_mt) AS debited_mt,
                            SUM(overage_mt) AS overage_mt
                       FROM usage_usagetally GROUP BY batch_id) AS tally
            ON tally.batch_id = batch.id
         WHERE (batch.received > 0 OR batch.kind = 'correction')
           AND (batch.received, batch.accepted, batch.duplicate, batch.conflict,
                batch.accepted_mt, batch.debited_mt, batch.overage_mt)
               IS DISTINCT FROM
               (tally.received, tally.accepted, tally.duplicate, tally.conflict,
                tally.accepted_mt, tally.debited_mt, tally.overage_mt)
         ORDER BY batch.id LIMIT %(limit)s
    """,
    "refused and conflicting events are in quarantine": """
        SELECT 'batch ' || batch.id, batch.rejected + batch.conflict, COALESCE(held.events, 0)
          FROM usage_usagebatch AS batch
          LEFT JOIN (SELECT batch_id, COUNT(*) AS events
                       FROM usage_quarantinedevent GROUP BY batch_id) AS held
            ON held.batch_id = batch.id
         WHERE batch.rejected + batch.conflict <> COALESCE(held.events, 0)
         ORDER BY batch.id LIMIT %(limit)s
    """,
    "an amended event has no less than nothing, a voided one nothing": """
        SELECT 'event ' || event.id, 0, event.mt + change.mt
          FROM (SELECT event_id, SUM(mt)::bigint AS mt, BOOL_OR(kind = 'void') AS voided,
                       MIN(occurred_at) AS occurred_at
                  FROM usage_amendment GROUP BY event_id) AS change
          JOIN usage_usageevent AS event
            ON event.id = change.event_id AND event.occurred_at = change.occurred_at
         WHERE event.mt + change.mt < 0 OR (change.voided AND event.mt + change.mt <> 0)
         ORDER BY event.id LIMIT %(limit)s
    """,
    "cycle totals = overage rows": """
        SELECT 'subscriber ' || COALESCE(total.subscriber_id, overage.subscriber_id),
               COALESCE(total.priced_mt + total.uncovered_mt, 0), COALESCE(overage.mt, 0)::bigint
          FROM usage_cycleoverage AS total
          FULL JOIN (SELECT subscriber_id, cycle, SUM(mt) AS mt,
                            COALESCE(SUM(mt) FILTER (WHERE priced), 0) AS priced_mt
                       FROM usage_overage GROUP BY subscriber_id, cycle) AS overage
            ON overage.subscriber_id = total.subscriber_id AND overage.cycle = total.cycle
         WHERE COALESCE(total.priced_mt, 0) <> COALESCE(overage.priced_mt, 0)
            OR COALESCE(total.uncovered_mt, 0)
               <> COALESCE(overage.mt, 0) - COALESCE(overage.priced_mt, 0)
         ORDER BY 1 LIMIT %(limit)s
    """,
    "pool usage of a member = its debits of the pool's buckets": """
        SELECT 'pool ' || COALESCE(used.pool_id, entry.pool_id) || ' subscriber '
                   || COALESCE(used.subscriber_id, entry.subscriber_id),
               COALESCE(entry.mt, 0)::bigint, COALESCE(used.mt, 0)::bigint
          FROM (SELECT pool_id, subscriber_id, SUM(mt) AS mt
                  FROM usage_poolusage GROUP BY pool_id, subscriber_id) AS used
          FULL JOIN (SELECT bucket.pool_id, entry.subscriber_id, -SUM(entry.amount_mt) AS mt
                       FROM usage_bucket AS bucket
                       JOIN usage_ledgerentry AS entry ON entry.bucket_id = bucket.id
                      WHERE bucket.pool_id IS NOT NULL AND entry.kind IN ('debit', 'refund')
                      GROUP BY bucket.pool_id, entry.subscriber_id) AS entry
            ON entry.pool_id = used.pool_id AND entry.subscriber_id = used.subscriber_id
         WHERE COALESCE(used.mt, 0) <> COALESCE(entry.mt, 0)
         ORDER BY 1 LIMIT %(limit)s
    """,
    "usage counted for limits = events and amendments of the day": """
        SELECT 'subscriber ' || used.subscriber_id || ' key ' || used.api_key_id || ' '
                   || used.day, counted.mt, used.mt
          FROM usage_limitusage AS used
         CROSS JOIN LATERAL (
                SELECT COALESCE(SUM(event.mt + COALESCE(amendment.mt, 0)), 0)::bigint AS mt
                  FROM usage_usageevent AS event
                  LEFT JOIN LATERAL (
                        SELECT SUM(change.mt) AS mt
                          FROM usage_amendment AS change
                         WHERE change.subscriber_id = event.subscriber_id
                           AND change.occurred_at = event.occurred_at
                           AND change.event_id = event.id) AS amendment ON TRUE
                 WHERE event.subscriber_id = used.subscriber_id
                   AND event.occurred_at >= used.day::timestamp AT TIME ZONE 'Asia/Shanghai'
                   AND event.occurred_at < (used.day + 1)::timestamp AT TIME ZONE 'Asia/Shanghai'
                   AND (used.api_key_id = 0 OR event.api_key_id = used.api_key_id)) AS counted
         WHERE used.mt <> counted.mt
         ORDER BY used.subscriber_id, used.api_key_id, used.day LIMIT %(limit)s
    """,
    "what rolled over = what was granted for it": """
        SELECT 'bucket ' || COALESCE(rolled.key, following.key), COALESCE(rolled.mt, 0)::bigint,
               COALESCE(following.granted_mt, 0)
          FROM (SELECT 'rollover:' || bucket_id AS key, -SUM(amount_mt) AS mt
                  FROM usage_ledgerentry WHERE kind = 'rollover' GROUP BY bucket_id) AS rolled
          FULL JOIN (SELECT key, granted_mt FROM usage_bucket
                      WHERE key LIKE 'rollover:%%') AS following ON following.key = rolled.key
         WHERE COALESCE(rolled.mt, 0) <> COALESCE(following.granted_mt, 0)
         ORDER BY 1 LIMIT %(limit)s
    """,
    "bucket reserved = what open sessions hold": """
        SELECT 'bucket ' || COALESCE(bucket.id, held.bucket_id), COALESCE(held.mt, 0)::bigint,
               COALESCE(bucket.reserved_mt, 0)
          FROM usage_bucket AS bucket
          FULL JOIN (SELECT part.bucket_id, SUM(part.mt) AS mt
                       FROM usage_quotasession AS session
                      CROSS JOIN LATERAL unnest(session.hold_bucket_ids, session.hold_mts)
                            AS part (bucket_id, mt)
                      WHERE session.state = 'open'
                      GROUP BY part.bucket_id) AS held
            ON held.bucket_id = bucket.id
         WHERE COALESCE(bucket.reserved_mt, 0) <> COALESCE(held.mt, 0)
         ORDER BY 1 LIMIT %(limit)s
    """,
    "reserved pay-as-you-go = what open sessions hold": """
        SELECT 'subscriber ' || COALESCE(profile.subscriber_id, held.subscriber_id),
               COALESCE(held.mt, 0)::bigint, COALESCE(profile.reserved_payg_mt, 0)
          FROM usage_chargingprofile AS profile
          FULL JOIN (SELECT session.subscriber_id, SUM(session.hold_payg_mt) AS mt
                       FROM usage_quotasession AS session
                      WHERE session.state = 'open'
                      GROUP BY session.subscriber_id) AS held
            ON held.subscriber_id = profile.subscriber_id
         WHERE COALESCE(profile.reserved_payg_mt, 0) <> COALESCE(held.mt, 0)
         ORDER BY 1 LIMIT %(limit)s
    """,
}

REPORTED = """
    SELECT COALESCE(SUM(tally.received), 0)::bigint AS received,
           COALESCE(SUM(tally.duplicate), 0)::bigint AS duplicate,
           COALESCE(SUM(tally.conflict), 0)::bigint AS conflict,
           COALESCE(SUM(tally.rejected), 0)::bigint AS rejected,
           COALESCE(SUM(tally.accepted), 0)::bigint AS accepted,
           COALESCE(SUM(tally.accepted_mt), 0)::bigint AS accepted_mt,
           COALESCE(SUM(tally.debited_mt), 0)::bigint AS debited_mt,
           COALESCE(SUM(tally.overage_mt), 0)::bigint AS overage_mt,
           COALESCE(SUM(tally.uncovered_mt), 0)::bigint AS uncovered_mt
      FROM usage_usagetally AS tally
     WHERE tally.day >= %(start)s AND tally.day < %(end)s
"""

# The same of the rows themselves: events and amendments, their debits and their overage.
STORED = """
    WITH event AS (
        SELECT event.id, event.mt, 1 AS events FROM usage_usageevent AS event
         WHERE event.occurred_at >= %(start_at)s AND event.occurred_at < %(end_at)s
         UNION ALL
        SELECT amendment.id, amendment.mt, 0 FROM usage_amendment AS amendment
         WHERE amendment.occurred_at >= %(start_at)s AND amendment.occurred_at < %(end_at)s
    )
    SELECT (SELECT COALESCE(SUM(event.events), 0) FROM event)::bigint
           + (SELECT COALESCE(SUM(dropped.events), 0) FROM usage_droppedday AS dropped
               WHERE dropped.day >= %(start)s AND dropped.day < %(end)s)::bigint AS accepted,
           (SELECT COALESCE(SUM(event.mt), 0) FROM event)::bigint
           + (SELECT COALESCE(SUM(dropped.mt), 0) FROM usage_droppedday AS dropped
               WHERE dropped.day >= %(start)s AND dropped.day < %(end)s)::bigint AS accepted_mt,
           (SELECT COALESCE(-SUM(entry.amount_mt), 0)
              FROM usage_ledgerentry AS entry
              JOIN event ON event.id = entry.event_id
             WHERE entry.kind IN ('debit', 'refund'))::bigint
           + (SELECT COALESCE(SUM(dropped.debited_mt), 0) FROM usage_droppedday AS dropped
               WHERE dropped.day >= %(start)s AND dropped.day < %(end)s)::bigint AS debited_mt,
           (SELECT COALESCE(SUM(overage.mt), 0) FROM usage_overage AS overage
             WHERE overage.priced AND overage.occurred_at >= %(start_at)s
               AND overage.occurred_at < %(end_at)s)::bigint AS overage_mt,
           (SELECT COALESCE(SUM(overage.mt), 0) FROM usage_overage AS overage
             WHERE NOT overage.priced AND overage.occurred_at >= %(start_at)s
               AND overage.occurred_at < %(end_at)s)::bigint AS uncovered_mt
"""


def verify(*, most: int = 20) -> list[Difference]:
    """Prove invariants 1 and 5 over everything stored; at most `most` differences a rule.

    All rules see one snapshot, so usage may go on meanwhile.
    """
    found = []
    with snapshot() as cursor:
        for rule, statement in RULES.items():
            for where, expected, actual in cursor.execute(statement, {"limit": most}):
                found.append(Difference(rule, where, expected, actual))
    return found


def period_totals(*, start: date, end: date) -> tuple[dict[str, int], list[Difference]]:
    """What was reported for the billing-zone days [start, end), and where the rows disagree.

    Events count on the day of their use; those without a readable time on the day they came.
    """
    period: dict[str, Any] = {
        "start": start,
        "end": end,
        "start_at": day_start(start),
        "end_at": day_start(end),
    }
    with snapshot() as cursor:
        reported = _row(cursor, REPORTED, period)
        stored = _row(cursor, STORED, period)
    differences = [
        Difference(f"reported {name} = stored {name}", f"{start}/{end}", reported[name], value)
        for name, value in stored.items()
        if reported[name] != value
    ]
    events = sum(reported[name] for name in ("accepted", "duplicate", "conflict", "rejected"))
    if events != reported["received"]:
        rule = "received = accepted + duplicate + conflict + rejected"
        differences.append(Difference(rule, f"{start}/{end}", reported["received"], events))
    tokens = sum(reported[name] for name in ("debited_mt", "overage_mt", "uncovered_mt"))
    if tokens != reported["accepted_mt"]:
        rule = "accepted mt = debited + overage + uncovered"
        differences.append(Difference(rule, f"{start}/{end}", reported["accepted_mt"], tokens))
    return reported, differences


@contextmanager
def snapshot() -> Iterator[Cursor]:
    """A cursor whose statements all see one instant and have the time they need.

    Inside an open transaction its snapshots are what they are.
    """
    outermost = not connection.in_atomic_block
    with transaction.atomic(), fast_cursor() as cursor:
        if outermost:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute("SET LOCAL statement_timeout = '15min'")
        yield cursor


def _row(cursor: Cursor, statement: str, parameters: dict[str, Any]) -> dict[str, int]:
    row = cursor.execute(statement, parameters).fetchone()
    assert row is not None  # an aggregate always has one row
    return dict(zip((column.name for column in cursor.description or ()), row, strict=True))
