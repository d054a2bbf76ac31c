"""Charging a batch: lock whom it concerns, let their buckets pay, book what nothing covers.

Locks: charging profiles in subscriber order, event keys, then pools, and nothing after them but the
feed's advisory lock. Everything here runs inside the caller's transaction.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from operator import attrgetter
from struct import Struct

import msgspec

from . import enforcement, limit_usage
from .database import Cursor, array, copied_time, copy_lines, copy_rows
from .locking import lock_standing
from .periods import cycle_of
from .standing import Profile, Standing
from .waterfall import OpenBucket, burn

# The periods whose buckets are closed already: usage of such a time comes late.
CLOSED_PERIODS = """
    SELECT bucket.subscriber_id, bucket.valid_from, bucket.valid_until
      FROM usage_bucket AS bucket
     WHERE bucket.subscriber_id = ANY(%(ids)s::bigint[]) AND bucket.closed_at IS NOT NULL
       AND bucket.valid_until > %(since)s
     ORDER BY bucket.subscriber_id, bucket.id
"""

# The same of the pools whose members they were then.
CLOSED_POOL_PERIODS = """
    SELECT member.subscriber_id, GREATEST(bucket.valid_from, member.joined_at),
           LEAST(bucket.valid_until, COALESCE(member.left_at, bucket.valid_until))
      FROM usage_poolmember AS member
      JOIN usage_bucket AS bucket ON bucket.pool_id = member.pool_id
     WHERE member.subscriber_id = ANY(%(ids)s::bigint[]) AND bucket.closed_at IS NOT NULL
       AND bucket.valid_until > %(since)s
     ORDER BY member.subscriber_id, bucket.id
"""

CYCLE_OVERAGE = """
    SELECT total.subscriber_id, total.cycle, total.priced_mt
      FROM usage_cycleoverage AS total
     WHERE total.subscriber_id = ANY(%(ids)s::bigint[]) AND total.cycle = ANY(%(cycles)s)
     ORDER BY total.subscriber_id, total.cycle
"""

ADD_CYCLE_OVERAGE = """
    INSERT INTO usage_cycleoverage AS total (subscriber_id, cycle, priced_mt, uncovered_mt)
    SELECT added.subscriber_id, added.cycle, added.priced_mt, added.uncovered_mt
      FROM unnest(%(owners)s::bigint[], %(cycles)s::date[], %(priced)s::bigint[],
                  %(uncovered)s::bigint[]) AS added (subscriber_id, cycle, priced_mt, uncovered_mt)
     ORDER BY added.subscriber_id, added.cycle
        ON CONFLICT (subscriber_id, cycle) DO UPDATE
       SET priced_mt = total.priced_mt + EXCLUDED.priced_mt,
           uncovered_mt = total.uncovered_mt + EXCLUDED.uncovered_mt
"""

ADD_POOL_USAGE = """
    INSERT INTO usage_poolusage AS total (pool_id, subscriber_id, day, mt)
    SELECT added.pool_id, added.subscriber_id, added.day, added.mt
      FROM unnest(%(pools)s::bigint[], %(owners)s::bigint[], %(days)s::text[]::date[],
                  %(amounts)s::bigint[]) AS added (pool_id, subscriber_id, day, mt)
     ORDER BY added.subscriber_id, added.day, added.pool_id
        ON CONFLICT (subscriber_id, day, pool_id) DO UPDATE SET mt = total.mt + EXCLUDED.mt
"""

FORGET = """
    UPDATE usage_chargingprofile SET remembered_by = 0
     WHERE subscriber_id = ANY(%(ids)s::bigint[])
"""

# A debit's row for COPY: all bigint, but the kind, and last of all the time.
_DEBIT = Struct("!h iq iq i5s iq iq").pack
_LAST = Struct("!iq").pack
_id_of, _instant_of, _owner_of = map(attrgetter, ("id", "instant", "subscriber_id"))
LEDGER_COLUMNS = "bucket_id, subscriber_id, kind, amount_mt, event_id, recorded_at"
OVERAGE_COLUMNS = (
    "event_id, batch_id, subscriber_id, account_id, model_id, cycle, occurred_at, recorded_at, "
    "mt, priced, fen_per_million"
)


class Usage(msgspec.Struct, gc=False):
    """One event to be charged, `instant` being its time as a number (`copied_time`) and `day` the
    billing day of it, and afterwards what became of its tokens (all mt)."""

    id: int
    batch_id: int
    subscriber_id: int
    model_id: int
    occurred_at: datetime
    instant: int
    day: date
    mt: int
    api_key_id: int | None = None
    late: bool = False
    debits: list[tuple[OpenBucket, int]] = []
    priced_mt: int = 0
    uncovered_mt: int = 0

    @property
    def debited_mt(self) -> int:
        """What buckets paid."""
        return sum(mt for _bucket, mt in self.debits)


def charge(
    cursor: Cursor,
    usages: Sequence[Usage],
    *,
    now: datetime,
    standing: Standing | None = None,
) -> Standing:
    """Charge events in order of their time, write what moved, and see to who may be served.

    `standing` is given by a caller who has locked all these subscribers already. Returns the locked
    subscribers as they stand afterwards, `blocked` included.
    """
    if standing is None:
        standing = lock_standing(cursor, sorted({usage.subscriber_id for usage in usages}), now=now)
    mark_late(cursor, usages, standing)
    enforcement.block(cursor, pay(cursor, usages, standing=standing, now=now), now=now)
    return standing


def pay(
    cursor: Cursor, usages: Sequence[Usage], *, standing: Standing, now: datetime
) -> list[Profile]:
    """Charge events that are marked as late or not, write what moved, and tell who comes to an end;
    returns whose block is another one now, to be written once all pools are locked."""
    if not usages:
        return []
    # By id first: at one instant the earlier one pays first.
    ordered = sorted(sorted(usages, key=_id_of), key=_instant_of)
    left: list[tuple[Usage, int]] = []
    for usage in ordered:
        uncovered = _burn(standing, usage, now)
        if uncovered:
            left.append((usage, uncovered))
    totals = priced_totals(cursor, standing, {usage.day for usage in ordered}, now=now)
    _price(left, standing, totals)
    _forget(cursor, standing)
    _write(cursor, ordered, standing, now)
    latest = {usage.subscriber_id: usage.occurred_at for usage in ordered}
    return enforcement.settle(cursor, standing=standing, latest=latest, totals=totals, now=now)


def _burn(standing: Standing, usage: Usage, now: datetime) -> int:
    """Let buckets pay for an event, and count what a pool pays; returns what none could cover."""
    owner, at, instant = usage.subscriber_id, usage.occurred_at, usage.instant
    if usage.late:
        at, instant = now, copied_time(now)
    membership = standing.membership(owner, at) if owner in standing.memberships else None
    if membership is None:
        buckets = standing.own.get(owner, ())
        usage.debits, uncovered = burn(buckets, model_id=usage.model_id, at=instant, mt=usage.mt)
        return uncovered
    day = standing.days.of(at) if usage.late else usage.day
    usage.debits, uncovered = burn(
        standing.with_pool(owner, membership),
        model_id=usage.model_id,
        at=instant,
        mt=usage.mt,
        pool_mt=membership.allowance_mt(day),
    )
    if membership.taken is not None:
        taken = sum(mt for bucket, mt in usage.debits if bucket.pool_id is not None)
        if taken:
            membership.taken.add(day, taken)
    return uncovered


def mark_late(
    cursor: Cursor, usages: Sequence[Usage], standing: Standing, *, with_pools: bool = True
) -> list[Usage]:
    """Usage is late when its time lies in a closed bucket's period and in no open one's.

    Returns what has to be marked later: without pools, events of members who have no bucket of
    their own for that time.
    """
    without = [
        usage
        for usage in usages
        if not standing.is_open(usage.subscriber_id, usage.occurred_at, usage.instant)
    ]
    doubtful: list[Usage] = []
    if without and standing.memberships and not with_pools:
        members = standing.memberships
        doubtful = [usage for usage in without if usage.subscriber_id in members]
        without = [usage for usage in without if usage.subscriber_id not in members]
    if not without:
        return doubtful
    closed: dict[int, list[tuple[datetime, datetime]]] = defaultdict(list)
    ids = sorted({usage.subscriber_id for usage in without})
    since = min(usage.occurred_at for usage in without)
    rows = cursor.execute(CLOSED_PERIODS, {"ids": array(ids), "since": since}).fetchall()
    if pooled := [owner for owner in ids if owner in standing.memberships]:
        rows += cursor.execute(
            CLOSED_POOL_PERIODS, {"ids": array(pooled), "since": since}
        ).fetchall()
    for owner, start, end in rows:
        closed[owner].append((start, end))
    for usage in without:
        usage.late = any(
            start <= usage.occurred_at < end for start, end in closed[usage.subscriber_id]
        )
    return doubtful


def priced_totals(
    cursor: Cursor, standing: Standing, days: Iterable[date], *, now: datetime
) -> dict[tuple[int, date], int]:
    """Priced overage so far of the pay-as-you-go subscribers, by subscriber and cycle, in mt: of
    the cycles of these days and that of `now`."""
    payg = [owner for owner, one in standing.profiles.items() if one.beyond == "payg"]
    totals: dict[tuple[int, date], int] = defaultdict(int)
    if payg:
        cycles = {cycle_of(now), *(day.replace(day=1) for day in days)}
        row = {"ids": array(payg), "cycles": sorted(cycles)}
        for owner, cycle, priced in cursor.execute(CYCLE_OVERAGE, row).fetchall():
            totals[owner, cycle] = priced
    return totals


def _price(
    left: Sequence[tuple[Usage, int]],
    standing: Standing,
    totals: dict[tuple[int, date], int],
) -> None:
    """Split what no bucket covered into priced (up to the cycle's cap) and uncovered."""
    for usage, mt in left:
        profile = standing.profiles[usage.subscriber_id]
        if profile.beyond == "payg":
            key = usage.subscriber_id, usage.day.replace(day=1)
            held = profile.reserved_payg_mt
            usage.priced_mt = min(mt, max(0, profile.payg_cap_mt - held - totals[key]))
            totals[key] += usage.priced_mt
        usage.uncovered_mt = mt - usage.priced_mt


def _forget(cursor: Cursor, standing: Standing) -> None:
    """Tell processes that remember the buckets of those charged here to read them again."""
    kept = standing.kept
    others = [
        owner
        for owner, profile in standing.profiles.items()
        if profile.remembered_by and owner not in kept
    ]
    if others:
        cursor.execute(FORGET, {"ids": array(others)})


def _write(cursor: Cursor, usages: Sequence[Usage], standing: Standing, now: datetime) -> None:
    """Ledger entries (a trigger moves the buckets), overage rows, totals of cycles, pools and
    limits."""
    recorded = _LAST(8, copied_time(now))
    copy_rows(
        cursor,
        table="usage_ledgerentry",
        columns=LEDGER_COLUMNS,
        rows=(
            _DEBIT(6, 8, bucket.id, 8, usage.subscriber_id, 5, b"debit", 8, -mt, 8, usage.id)
            + recorded
            for usage in sorted(usages, key=_owner_of)  # neighbours in the index over buckets
            for bucket, mt in usage.debits
        ),
    )
    _write_overage(
        cursor, [one for one in usages if one.priced_mt or one.uncovered_mt], standing, now
    )
    if standing.of_pools:
        _write_pool_usage(cursor, usages, standing, now)
    profiles = standing.profiles
    if any(profile.limited_since is not None for profile in profiles.values()):
        limited = [one for one in usages if profiles[one.subscriber_id].limited_since is not None]
        limit_usage.add(
            cursor, ((one.subscriber_id, one.api_key_id, one.day, one.mt) for one in limited)
        )


def _write_overage(
    cursor: Cursor, usages: Sequence[Usage], standing: Standing, now: datetime
) -> None:
    if not usages:
        return
    lines: list[str] = []
    sums: dict[tuple[int, date], list[int]] = defaultdict(lambda: [0, 0])
    for usage in usages:
        profile = standing.profiles[usage.subscriber_id]
        cycle = usage.day.replace(day=1)
        sums[usage.subscriber_id, cycle][0] += usage.priced_mt
        sums[usage.subscriber_id, cycle][1] += usage.uncovered_mt
        head = (
            f"{usage.id}\t{usage.batch_id}\t{usage.subscriber_id}\t{profile.account_id}\t"
            f"{usage.model_id}\t{cycle}\t{usage.occurred_at.isoformat()}\t{now.isoformat()}"
        )
        if usage.priced_mt:
            lines.append(f"{head}\t{usage.priced_mt}\tt\t{profile.payg_fen_per_million}")
        if usage.uncovered_mt:
            lines.append(f"{head}\t{usage.uncovered_mt}\tf\t0")
    copy_lines(cursor, table="usage_overage", columns=OVERAGE_COLUMNS, lines=lines)
    add_cycle_overage(cursor, {key: (priced, rest) for key, (priced, rest) in sums.items()})


def add_cycle_overage(cursor: Cursor, sums: Mapping[tuple[int, date], tuple[int, int]]) -> None:
    """Add (priced, uncovered) mt to the totals of (subscriber, cycle)."""
    keys = sorted(sums)
    cursor.execute(
        ADD_CYCLE_OVERAGE,
        {
            "owners": array(owner for owner, _cycle in keys),
            "cycles": [cycle for _owner, cycle in keys],
            "priced": array(sums[key][0] for key in keys),
            "uncovered": array(sums[key][1] for key in keys),
        },
    )


def _write_pool_usage(
    cursor: Cursor, usages: Sequence[Usage], standing: Standing, now: datetime
) -> None:
    sums: dict[tuple[int, date, int], int] = defaultdict(int)
    for usage in usages:
        day = standing.days.of(now) if usage.late else usage.day
        for bucket, mt in usage.debits:
            if bucket.pool_id is not None:
                sums[usage.subscriber_id, day, bucket.pool_id] += mt
    if sums:
        keys = sorted(sums)
        cursor.execute(
            ADD_POOL_USAGE,
            {
                "owners": array(owner for owner, _day, _pool in keys),
                "days": [day.isoformat() for _owner, day, _pool in keys],  # quicker than dates
                "pools": array(pool for _owner, _day, pool in keys),
                "amounts": array(sums[key] for key in keys),
            },
        )
