"""Charging a batch: lock whom it concerns, let their buckets pay, book what nothing covers.

Locks: charging profiles in subscriber order, and nothing after them but the feed's advisory lock.
Buckets are only moved by whoever holds their subscriber's profile, so they need no lock of their
own. Everything here runs inside the caller's transaction.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from . import enforcement
from .database import Cursor, copy_lines
from .locking import Profile, lock_profiles, open_buckets
from .periods import cycle_of
from .waterfall import OpenBucket, burn

# The periods whose buckets are closed already: usage of such a time comes late.
CLOSED_PERIODS = """
    SELECT bucket.subscriber_id, bucket.valid_from, bucket.valid_until
      FROM usage_bucket AS bucket
     WHERE bucket.subscriber_id = ANY(%(ids)s) AND bucket.closed_at IS NOT NULL
       AND bucket.valid_until > %(since)s
     ORDER BY bucket.subscriber_id, bucket.id
"""

CYCLE_OVERAGE = """
    SELECT total.subscriber_id, total.cycle, total.priced_mt
      FROM usage_cycleoverage AS total
     WHERE total.subscriber_id = ANY(%(ids)s) AND total.cycle = ANY(%(cycles)s)
     ORDER BY total.subscriber_id, total.cycle
"""

ADD_CYCLE_OVERAGE = """
    INSERT INTO usage_cycleoverage AS total (subscriber_id, cycle, priced_mt, uncovered_mt)
    VALUES (%(subscriber_id)s, %(cycle)s, %(priced_mt)s, %(uncovered_mt)s)
        ON CONFLICT (subscriber_id, cycle) DO UPDATE
       SET priced_mt = total.priced_mt + EXCLUDED.priced_mt,
           uncovered_mt = total.uncovered_mt + EXCLUDED.uncovered_mt
"""

LEDGER_COLUMNS = "bucket_id, subscriber_id, kind, amount_mt, event_id, recorded_at"
OVERAGE_COLUMNS = (
    "event_id, batch_id, subscriber_id, account_id, model_id, cycle, occurred_at, recorded_at, "
    "mt, priced, fen_per_million"
)


@dataclass(slots=True)
class Usage:
    """One event to be charged, and afterwards what became of its tokens (all mt)."""

    id: int
    batch_id: int
    subscriber_id: int
    model_id: int
    occurred_at: datetime
    mt: int
    late: bool = False
    debits: list[tuple[int, int]] = field(default_factory=list)
    priced_mt: int = 0
    uncovered_mt: int = 0

    @property
    def debited_mt(self) -> int:
        """What buckets paid."""
        return self.mt - self.priced_mt - self.uncovered_mt


def charge(cursor: Cursor, usages: Sequence[Usage], *, now: datetime) -> dict[int, Profile]:
    """Charge events in order of their time and write what moved; returns the locked profiles by
    subscriber, with `blocked` as it is now."""
    ids = sorted({usage.subscriber_id for usage in usages})
    profiles = lock_profiles(cursor, ids)
    buckets = open_buckets(cursor, ids)
    ordered = sorted(usages, key=lambda usage: (usage.occurred_at, usage.id))
    _mark_late(cursor, ordered, buckets)
    left: list[tuple[Usage, int]] = []
    for usage in ordered:
        at = now if usage.late else usage.occurred_at
        usage.debits, uncovered = burn(
            buckets[usage.subscriber_id], model_id=usage.model_id, at=at, mt=usage.mt
        )
        if uncovered:
            left.append((usage, uncovered))
    totals = _priced_totals(cursor, profiles, ordered, now)
    _price(left, profiles, totals)
    _write(cursor, ordered, profiles, now)
    latest = {usage.subscriber_id: usage.occurred_at for usage in ordered}
    enforcement.settle(
        cursor, profiles=profiles, buckets=buckets, latest=latest, totals=totals, now=now
    )
    return profiles


def _mark_late(
    cursor: Cursor, usages: Sequence[Usage], buckets: dict[int, list[OpenBucket]]
) -> None:
    """Usage is late when its time lies in a closed bucket's period and in no open one's."""
    without = [
        usage
        for usage in usages
        if not any(
            bucket.valid_from <= usage.occurred_at < bucket.valid_until
            for bucket in buckets[usage.subscriber_id]
        )
    ]
    if not without:
        return
    closed: dict[int, list[tuple[datetime, datetime]]] = defaultdict(list)
    ids = sorted({usage.subscriber_id for usage in without})
    since = min(usage.occurred_at for usage in without)
    for owner, start, end in cursor.execute(CLOSED_PERIODS, {"ids": ids, "since": since}):
        closed[owner].append((start, end))
    for usage in without:
        usage.late = any(
            start <= usage.occurred_at < end for start, end in closed[usage.subscriber_id]
        )


def _priced_totals(
    cursor: Cursor, profiles: dict[int, Profile], usages: Sequence[Usage], now: datetime
) -> dict[tuple[int, date], int]:
    """Priced overage so far of the pay-as-you-go subscribers, by subscriber and cycle, in mt."""
    payg = [owner for owner, profile in profiles.items() if profile.beyond == "payg"]
    totals: dict[tuple[int, date], int] = defaultdict(int)
    if payg:
        cycles = sorted({cycle_of(now), *(cycle_of(usage.occurred_at) for usage in usages)})
        for owner, cycle, priced in cursor.execute(CYCLE_OVERAGE, {"ids": payg, "cycles": cycles}):
            totals[owner, cycle] = priced
    return totals


def _price(
    left: Sequence[tuple[Usage, int]],
    profiles: dict[int, Profile],
    totals: dict[tuple[int, date], int],
) -> None:
    """Split what no bucket covered into priced (up to the cycle's cap) and uncovered."""
    for usage, mt in left:
        profile = profiles[usage.subscriber_id]
        if profile.beyond == "payg":
            key = usage.subscriber_id, cycle_of(usage.occurred_at)
            usage.priced_mt = min(mt, max(0, profile.payg_cap_mt - totals[key]))
            totals[key] += usage.priced_mt
        usage.uncovered_mt = mt - usage.priced_mt


def _write(
    cursor: Cursor, usages: Sequence[Usage], profiles: dict[int, Profile], now: datetime
) -> None:
    """Ledger entries (a trigger moves the buckets), overage rows and the cycle's totals."""
    recorded = now.isoformat()
    copy_lines(
        cursor,
        table="usage_ledgerentry",
        columns=LEDGER_COLUMNS,
        lines=(
            f"{bucket_id}\t{usage.subscriber_id}\tdebit\t{-mt}\t{usage.id}\t{recorded}"
            for usage in usages
            for bucket_id, mt in usage.debits
        ),
    )
    lines: list[str] = []
    sums: dict[tuple[int, date], list[int]] = defaultdict(lambda: [0, 0])
    for usage in usages:
        if not (usage.priced_mt or usage.uncovered_mt):
            continue
        profile = profiles[usage.subscriber_id]
        cycle = cycle_of(usage.occurred_at)
        sums[usage.subscriber_id, cycle][0] += usage.priced_mt
        sums[usage.subscriber_id, cycle][1] += usage.uncovered_mt
        head = (
            f"{usage.id}\t{usage.batch_id}\t{usage.subscriber_id}\t{profile.account_id}\t"
            f"{usage.model_id}\t{cycle}\t{usage.occurred_at.isoformat()}\t{recorded}"
        )
        if usage.priced_mt:
            lines.append(f"{head}\t{usage.priced_mt}\tt\t{profile.payg_fen_per_million}")
        if usage.uncovered_mt:
            lines.append(f"{head}\t{usage.uncovered_mt}\tf\t0")
    copy_lines(cursor, table="usage_overage", columns=OVERAGE_COLUMNS, lines=lines)
    if sums:
        cursor.executemany(
            ADD_CYCLE_OVERAGE,
            [
                {
                    "subscriber_id": owner,
                    "cycle": cycle,
                    "priced_mt": priced,
                    "uncovered_mt": uncovered,
                }
                for (owner, cycle), (priced, uncovered) in sorted(sums.items())
            ],
        )
