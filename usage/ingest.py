"""A usage event's way in: read, resolve, lock, claim its key, charge, record; one transaction for
all deliveries in hand, mostly one batch.

Whatever a batch holds, the answer tells what happened to each event; what was refused or
conflicts is kept in quarantine. A batch that is sent again finds its keys taken.

Two large batches nearly always have a few subscribers in common. The later one does not wait for
those: it counts the others, commits, and counts what it set aside in another transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec
from django.db import connection, transaction

from config.retrying import retry_transaction

from .arriving import EVENT_COLUMNS, Arrival, Delivery, arrive, owners_of
from .batches import BatchResult, add_batches, quarantine
from .charging import Usage, mark_late, pay
from .database import Cursor, copy_rows, fast_cursor
from .decoding import Candidate, Refusal, read_events
from .enforcement import block
from .identity import Verdict, judge
from .locking import Owners, lock_owners, lock_shared, read_own
from .models import Node, UsageBatch
from .periods import day_of
from .remembering import Hold, Memory
from .standing import Profile
from .waterfall import OpenBucket

# As many events as are worth a second transaction rather than waiting for whoever is locked.
LARGE_EVENTS = 200

T = TypeVar("T")
Read = Sequence[Sequence[Candidate | Refusal]]  # by delivery


def ingest(
    *,
    node: Node,
    events: Sequence[bytes],
    now: datetime,
    kind: str = UsageBatch.Kind.EVENTS,
    sequence: int | None = None,
) -> BatchResult:
    """Count a batch of raw JSON events reported by a node; safe to send again, whole or in part.

    Raises django.db errors when the database is away or busy: then of a large batch some events
    may be counted, of others none is, and sending the same again counts what is missing.
    """
    [result] = ingest_together([Delivery(node, events, kind, sequence)], now=now)
    return result


def ingest_together(deliveries: Sequence[Delivery], *, now: datetime) -> list[BatchResult]:
    """Count several deliveries, a batch each; of events that share a key, whichever is counted
    first wins: the earlier one, unless its subscriber has to be waited for."""
    portions = [portion_of(delivery, now=now) for delivery in deliveries]
    return [portion.counted() for portion in count_all(portions, now=now)]


class Portion(msgspec.Struct, frozen=True):
    """What of a delivery is still to be counted, and what became of the rest."""

    delivery: Delivery
    events: Sequence[Candidate | Refusal]
    result: BatchResult | None = None
    tried: bool = False  # already, when others held what is left

    def counted(self) -> BatchResult:
        """What became of all of it, once nothing is left."""
        assert self.result is not None and not self.events
        return self.result


def portion_of(delivery: Delivery, *, now: datetime) -> Portion:
    """All of a delivery, read."""
    events = read_events(delivery.events, now=now, positions=delivery.positions)
    return Portion(delivery, events)


def count_all(
    portions: Sequence[Portion], *, now: datetime, memory: Memory | None = None
) -> list[Portion]:
    """Count portions, all of them: of many events those first whose subscribers nobody holds."""
    # Inside of somebody's transaction locks last until its end, so nothing can be put off.
    large = sum(len(portion.events) for portion in portions) >= LARGE_EVENTS
    waits = not large or connection.in_atomic_block
    counted = count_portions(portions, now=now, waits=waits, memory=memory)
    if left := [portion for portion in counted if portion.events]:
        rest = iter(count_portions(left, now=now, waits=True, memory=memory))
        counted = [next(rest) if portion.events else portion for portion in counted]
    return counted


def count_portions(
    portions: Sequence[Portion], *, now: datetime, waits: bool, memory: Memory | None = None
) -> list[Portion]:
    """Count portions in one transaction. What is left of them are events whose subscribers others
    hold; none with `waits`, without which this must not be called inside of a transaction."""
    deliveries = [portion.delivery for portion in portions]
    read = [portion.events for portion in portions]
    if connection.in_atomic_block:
        memory = None  # whether this will ever be committed is not known here
    fresh = [not portion.tried for portion in portions]
    counted = retry_transaction(
        lambda: _count(deliveries, read, now, waits=waits, fresh=fresh, memory=memory)
    )
    if memory:
        memory.keep(counted.hold, counted.own)
    return [
        Portion(one.delivery, left, _joined(one.result, result), tried=True)
        for one, result, left in zip(portions, counted.results, counted.left, strict=True)
    ]


def _joined(first: BatchResult | None, later: BatchResult | None) -> BatchResult | None:
    return first.and_later(later) if first and later else first or later


class _Counted(msgspec.Struct):
    """By delivery: its result, None where none of it was counted, and what is left. Then what may
    be remembered."""

    results: list[BatchResult | None]
    left: Read
    hold: Hold
    own: dict[int, list[OpenBucket]]


@transaction.atomic
def _count(
    deliveries: Sequence[Delivery],
    read: Read,
    now: datetime,
    *,
    waits: bool,
    fresh: Sequence[bool],
    memory: Memory | None = None,
) -> _Counted:
    """Count what can be counted at once; with `waits` that is all of it."""
    with fast_cursor() as cursor:
        arrived = arrive(cursor, deliveries, read, numbers=memory.numbers if memory else None)
        owners = owners_of(arrived)
        if waits:
            profiles, memberships = lock_owners(cursor, owners, now=now)
        else:
            untried = owners_of(one for one, is_new in zip(arrived, fresh, strict=True) if is_new)
            profiles, memberships = _locked(cursor, owners, untried, now)
        left = [_set_aside(one, profiles) if len(profiles) < len(owners) else [] for one in arrived]
        arrivals = []
        for arrival, rest in zip(arrived, left, strict=True):
            if rest:
                # The sender's number stands for all of the report: its last batch has it.
                arrival.batch.sequence = None
            if not rest or arrival.resolved or arrival.refusals:
                arrivals.append(arrival)
        claim(cursor, arrivals, now=now)
        usages = [usage for arrival in arrivals for usage in arrival.usages]
        new = {usage.subscriber_id for usage in usages}
        if len(new) < len(profiles):  # of the others all was counted before
            charged = {owner: one for owner, one in profiles.items() if owner in new}
            of_pools = {owner: own for owner, own in memberships.items() if owner in new}
        else:
            charged, of_pools = profiles, memberships
        hold = memory.hold(cursor, charged) if memory else Hold()
        standing = read_own(cursor, charged, of_pools, found=hold.found, kept=hold.owners)
        # What can be done before pools are locked is done before: many may be after one pool, and
        # have it until they commit.
        doubtful = mark_late(cursor, usages, standing, with_pools=False)
        rows = rows_of(arrivals)
        doubted = {usage.id for usage in doubtful}
        write_events(cursor, [row for row in rows if row[1].id not in doubted])
        alone, pooled = standing.divided()
        of_members = [usage for usage in usages if usage.subscriber_id in pooled.profiles]
        of_others = [usage for usage in usages if usage.subscriber_id in alone.profiles]
        changed = pay(cursor, of_others, standing=alone, now=now)
        lock_shared(cursor, pooled, now=now)
        mark_late(cursor, doubtful, pooled)
        changed += pay(cursor, of_members, standing=pooled, now=now)
        write_events(cursor, [row for row in rows if row[1].id in doubted])
        counted = record(cursor, arrivals, profiles=profiles, now=now)
        block(cursor, changed, now=now)
        pools = {owner: own[-1].pool_id for owner, own in memberships.items()}
        for arrival, one in zip(arrivals, counted, strict=True):
            one.pooled = _of_those(arrival.subjects, pools)
        results = {arrival.batch.id: one for arrival, one in zip(arrivals, counted, strict=True)}
        told = [results.get(arrival.batch.id) for arrival in arrived]
        return _Counted(told, left, hold, standing.own)


class _TooFew(Exception):
    """Most of those concerned are held by others; the locks just taken are given back."""


def _locked(cursor: Cursor, owners: Sequence[int], new: Sequence[int], now: datetime) -> Owners:
    """Lock those subscribers who are free. If these are so few that two transactions would do no
    better than one that waits, wait for the `new` ones; the others were tried before, and hold
    nobody up."""
    try:
        with transaction.atomic():
            locked = lock_owners(cursor, owners, now=now, waits=False)
            if new and 2 * len(locked[0]) < len(owners):
                raise _TooFew
        return locked
    except _TooFew:
        return lock_owners(cursor, new, now=now)


def _set_aside(arrival: Arrival, profiles: Mapping[int, Profile]) -> list[Candidate]:
    """Take the events of subscribers that are not ours now out of a batch."""
    items = arrival.resolved
    aside = [item.event for item in items if item.subscriber_id not in profiles]
    if aside:
        arrival.resolved = [item for item in items if item.subscriber_id in profiles]
    return aside


def claim(cursor: Cursor, arrivals: Sequence[Arrival], *, now: datetime) -> None:
    """Claim the keys of resolved events, to be charged and recorded in the same transaction.

    Their subscribers are locked before, and pools after it, always, so that nobody waits crosswise.
    """
    items = [item for arrival in arrivals for item in arrival.resolved]
    keys, contents = [item.key for item in items], [item.content for item in items]
    verdicts = iter(judge(cursor, keys, contents, day=day_of(now)))
    for arrival in arrivals:
        for item in arrival.resolved:
            verdict = next(verdicts)
            if verdict is Verdict.NEW:
                arrival.take(item)
            elif verdict is Verdict.DUPLICATE:
                arrival.repeat(item)
            else:
                detail = "An event with this source and id was counted with another content."
                arrival.refuse(item.event, "conflict", detail)


def rows_of(arrivals: Sequence[Arrival]) -> list[tuple[bytes, Usage]]:
    """The rows of new events, each with what is charged for it; those of a subscriber together,
    since the index over them then is visited in its order: a quarter less work."""
    rows = [row for arrival in arrivals for row in zip(arrival.rows, arrival.usages, strict=True)]
    return sorted(rows, key=_owner_of)


def _owner_of(row: tuple[bytes, Usage]) -> int:
    return row[1].subscriber_id


def write_events(cursor: Cursor, rows: Iterable[tuple[bytes, Usage]]) -> None:
    """Write new events that are marked as late or not."""
    copy_rows(
        cursor,
        table="usage_usageevent",
        columns=EVENT_COLUMNS,
        rows=(row + (b"\1" if usage.late else b"\0") for row, usage in rows),
    )


def record(
    cursor: Cursor, arrivals: Sequence[Arrival], *, profiles: dict[int, Profile], now: datetime
) -> list[BatchResult]:
    """Write what became of charged batches: their counts, and the evidence of what was refused.

    The answer tells of repeats' blocks too, since the one that did so may have been lost.
    """
    for arrival in arrivals:
        _tally(arrival)
    totals = add_batches(cursor, [arrival.batch for arrival in arrivals], now=now)
    blocked = {owner: one.blocked for owner, one in profiles.items() if one.blocked}
    results = []
    for arrival, total in zip(arrivals, totals, strict=True):
        number, node_id = arrival.batch.id, arrival.batch.node_id
        refusals = sorted(arrival.refusals, key=lambda one: one.position)
        if refusals:
            quarantine(batch_id=number, node_id=node_id, refusals=refusals, now=now)
        exhausted = _of_those(arrival.subjects, blocked)
        results.append(BatchResult(number, total, refusals, sorted(set(exhausted))))
    return results


def _of_those(subjects: Sequence[tuple[int, str]], about: Mapping[int, T]) -> list[tuple[str, T]]:
    """The subjects of whom something is known, with that; mostly there are few or none."""
    return [(name, about[owner]) for owner, name in subjects if owner in about] if about else []


def _tally(arrival: Arrival) -> None:
    """Add new and refused events to the batch's tallies; repeats are counted already."""
    by_day = arrival.batch.by_day
    for usage in arrival.usages:
        tally = by_day[usage.day]
        tally.accepted += 1
        tally.accepted_mt += usage.mt
        for _bucket, mt in usage.debits:
            tally.debited_mt += mt
        if usage.uncovered_mt or usage.priced_mt:
            tally.overage_mt += usage.priced_mt
            tally.uncovered_mt += usage.uncovered_mt
    for tally in by_day.values():
        tally.received += tally.accepted
    for refusal in arrival.refusals:
        tally = by_day[refusal.day]
        tally.received += 1
        if refusal.code == "conflict":
            tally.conflict += 1
        else:
            tally.rejected += 1
