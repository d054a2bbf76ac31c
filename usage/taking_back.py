"""Taking usage back: what was uncovered first, then priced overage, then buckets, the last one to
pay first. What returns to a bucket that is void or closed is lost again in the same statement."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from .amended import Beyond, NetEvent, Payment
from .charging import add_cycle_overage
from .database import Cursor

ADD_ENTRIES = """
    INSERT INTO usage_ledgerentry (
        bucket_id, subscriber_id, kind, amount_mt, event_id, recorded_at, actor, reason)
    SELECT moved.bucket_id, moved.subscriber_id, moved.kind, moved.amount_mt, moved.event_id,
           %(now)s, moved.actor, moved.reason
      FROM unnest(%(buckets)s::bigint[], %(owners)s::bigint[], %(kinds)s::text[],
                  %(amounts)s::bigint[], %(events)s::bigint[], %(actors)s::text[],
                  %(reasons)s::text[]) WITH ORDINALITY
           AS moved (bucket_id, subscriber_id, kind, amount_mt, event_id, actor, reason, place)
     ORDER BY moved.place
"""

ADD_OVERAGE = """
    INSERT INTO usage_overage (
        event_id, batch_id, subscriber_id, account_id, model_id, cycle, occurred_at, recorded_at,
        mt, priced, fen_per_million)
    VALUES (
        %(event_id)s, %(batch_id)s, %(subscriber_id)s, %(account_id)s, %(model_id)s, %(cycle)s,
        %(occurred_at)s, %(now)s, %(mt)s, %(priced)s, %(fen_per_million)s)
"""

LOWER_POOL_USAGE = """
    UPDATE usage_poolusage AS total SET mt = total.mt - lowered.mt
      FROM unnest(%(pools)s::bigint[], %(owners)s::bigint[], %(days)s::date[],
                  %(amounts)s::bigint[]) AS lowered (pool_id, subscriber_id, day, mt)
     WHERE total.pool_id = lowered.pool_id AND total.subscriber_id = lowered.subscriber_id
       AND total.day = lowered.day
"""


@dataclass(slots=True)
class TakenBack:
    """What an amendment (`id`, of batch `batch_id`) gives back of an event; all mt above zero."""

    id: int
    batch_id: int
    event: NetEvent
    actor: str
    reason: str
    refunds: list[Payment] = field(default_factory=list)
    beyond: list[Beyond] = field(default_factory=list)

    @property
    def refunded_mt(self) -> int:
        """What buckets get."""
        return sum(part.mt for part in self.refunds)

    @property
    def refilled_pools(self) -> set[int]:
        """Pools that can pay with it again."""
        return {
            part.pool_id for part in self.refunds if part.pool_id is not None and not part.lost_as
        }

    @property
    def priced_mt(self) -> int:
        """What is owed no more."""
        return sum(part.mt for part in self.beyond if part.priced)

    @property
    def uncovered_mt(self) -> int:
        """What is uncovered no more."""
        return sum(part.mt for part in self.beyond if not part.priced)


def choose(taken: TakenBack, *, mt: int) -> None:
    """Decide where `mt` of the event's tokens come from; there must be as many."""
    event = taken.event
    for priced in (False, True):
        for part in reversed(event.beyond):
            less = min(mt, part.mt) if part.priced is priced else 0
            if less:
                mt -= less
                taken.beyond.append(
                    Beyond(part.account_id, priced, part.fen_per_million, part.cycle, less)
                )
    for payment in reversed(event.payments):
        if less := min(mt, payment.mt):
            mt -= less
            taken.refunds.append(
                Payment(payment.bucket_id, payment.pool_id, payment.lost_as, payment.day, less)
            )
    assert mt == 0, "an event has fewer tokens than are taken back from it"


def write(cursor: Cursor, all_taken: Sequence[TakenBack], *, now: datetime) -> None:
    """Ledger entries (a trigger moves the buckets), overage below zero, totals of cycles and
    pools; the caller holds the locks of the subscribers and of the pools concerned."""
    _write_entries(cursor, all_taken, now)
    _write_overage(cursor, all_taken, now)
    _lower_pool_usage(cursor, all_taken)


def _write_entries(cursor: Cursor, all_taken: Sequence[TakenBack], now: datetime) -> None:
    rows = []
    for taken in all_taken:
        tail = (taken.id, taken.actor, taken.reason)
        for part in taken.refunds:
            head = (part.bucket_id, taken.event.subscriber_id)
            rows.append((*head, "refund", part.mt, *tail))
            if part.lost_as:  # it pays no more: the units are not given out again
                rows.append((*head, part.lost_as, -part.mt, *tail))
    if rows:
        names = ("buckets", "owners", "kinds", "amounts", "events", "actors", "reasons")
        columns = (list(column) for column in zip(*rows, strict=True))
        cursor.execute(ADD_ENTRIES, dict(zip(names, columns, strict=True)) | {"now": now})


def _write_overage(cursor: Cursor, all_taken: Sequence[TakenBack], now: datetime) -> None:
    sums: dict[tuple[int, date], list[int]] = defaultdict(lambda: [0, 0])
    rows: list[dict[str, object]] = []
    for taken in all_taken:
        event = taken.event
        for part in taken.beyond:
            sums[event.subscriber_id, part.cycle][0 if part.priced else 1] -= part.mt
            rows.append(
                {
                    "event_id": taken.id,
                    "batch_id": taken.batch_id,
                    "subscriber_id": event.subscriber_id,
                    "account_id": part.account_id,
                    "model_id": event.model_id,
                    "cycle": part.cycle,
                    "occurred_at": event.occurred_at,
                    "now": now,
                    "mt": -part.mt,
                    "priced": part.priced,
                    "fen_per_million": part.fen_per_million,
                }
            )
    if rows:
        cursor.executemany(ADD_OVERAGE, rows)
        add_cycle_overage(cursor, {key: (priced, rest) for key, (priced, rest) in sums.items()})


def _lower_pool_usage(cursor: Cursor, all_taken: Sequence[TakenBack]) -> None:
    sums: dict[tuple[int, int, date], int] = defaultdict(int)
    for taken in all_taken:
        for part in taken.refunds:
            if part.pool_id is not None:
                sums[part.pool_id, taken.event.subscriber_id, part.day] += part.mt
    if sums:
        keys = sorted(sums)
        cursor.execute(
            LOWER_POOL_USAGE,
            {
                "pools": [pool for pool, _owner, _day in keys],
                "owners": [owner for _pool, owner, _day in keys],
                "days": [day for _pool, _owner, day in keys],
                "amounts": [sums[key] for key in keys],
            },
        )
