"""Writing amendments: a batch of their own, what they take back, what they charge.

The identities of a batch hold for corrections too, with signs: accepted = debited + overage +
uncovered. Everything runs in the caller's transaction, under the locks of those concerned.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from . import callbacks, limit_usage, taking_back
from .amended import NetEvent, net_events
from .batches import EVENTS_PER_BATCH, Batch, Tally, add_batches, next_batches
from .charging import Usage, charge
from .database import Cursor, copied_time
from .enforcement import reconsider
from .locking import lock_pools, lock_profiles
from .models import Amendment, UsageBatch
from .normalising import Counts
from .periods import day_of
from .pools import open_members

# Pools that paid, and every pool that the subscribers were ever in: a later step may ask for more
# of them, and all must be locked in one order.
POOLS_OF = """
    SELECT bucket.pool_id
      FROM usage_bucket AS bucket
     WHERE bucket.id = ANY(%(buckets)s) AND bucket.pool_id IS NOT NULL
     UNION
    SELECT member.pool_id
      FROM usage_poolmember AS member
     WHERE member.subscriber_id = ANY(%(owners)s)
     ORDER BY 1
"""


@dataclass(slots=True)
class Change:
    """By how much an event changes, and why; `weight_id` is the one that holds for it then."""

    event: NetEvent
    kind: str
    counts: Counts
    mt: int
    weight_id: int
    actor: str
    reason: str
    key: str


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, and the pools that got tokens back for members who may be waiting."""

    amendments: list[Amendment]
    batch_id: int
    refilled_pools: list[int]

    def open_members(self, *, now: datetime) -> None:
        """Look again at the waiting members of those pools, once all is committed: a pool is
        locked after profiles, so not within."""
        for pool_id in self.refilled_pools:
            open_members(pool_id=pool_id, refill=f"correction:{self.batch_id}", now=now)


@dataclass(slots=True)
class _Row:
    change: Change
    id: int
    batch_id: int
    late: bool = False
    debited_mt: int = 0
    priced_mt: int = 0
    uncovered_mt: int = 0


def lock_events(cursor: Cursor, ids: Sequence[int]) -> dict[int, NetEvent]:
    """Lock whoever is concerned by these events and answer with them as they stand."""
    before = net_events(cursor, ids)
    if not before:
        return before
    owners = sorted({event.subscriber_id for event in before.values()})
    lock_profiles(cursor, owners)
    buckets = {part.bucket_id for event in before.values() for part in event.payments}
    concerned = {"buckets": sorted(buckets), "owners": owners}
    if pools := [pool for (pool,) in cursor.execute(POOLS_OF, concerned)]:
        lock_pools(cursor, pools)
    return net_events(cursor, ids)  # by statements of their own: what a former holder has written


def write(cursor: Cursor, changes: Sequence[Change], *, now: datetime) -> Written:
    """Write amendments of locked events, at most 16,384, and move what they move; the caller has
    members of refilled pools looked at once it has committed."""
    written = _numbered(cursor, changes)
    pools = _take_back(cursor, [one for one in written if one.change.mt < 0], now)
    _charge(cursor, [one for one in written if one.change.mt > 0], now)
    amendments = [_amendment(one, now) for one in written]
    Amendment.objects.bulk_create(amendments, batch_size=1000)
    _record(cursor, written, now)
    gives_back = any(one.change.mt < 0 for one in written)
    cause = f"correction:{written[0].batch_id}"
    reconsider(
        subscriber_ids=[one.change.event.subscriber_id for one in written],
        now=now,
        refill=cause if gives_back else "",
    )
    for pool_id in pools:
        callbacks.reauthorize_pool(cursor, pool_id=pool_id, cause=cause, now=now)
    return Written(amendments, written[0].batch_id, pools)


def _numbered(cursor: Cursor, changes: Sequence[Change]) -> list[_Row]:
    """A batch for each node, since a batch belongs to one; an amendment's number is in it."""
    assert 0 < len(changes) <= EVENTS_PER_BATCH
    by_node: dict[int, list[Change]] = defaultdict(list)
    for change in changes:
        by_node[change.event.node_id].append(change)
    written = []
    numbers = next_batches(cursor, len(by_node))
    for batch_id, (_node, own) in zip(numbers, sorted(by_node.items()), strict=True):
        first = batch_id * EVENTS_PER_BATCH
        written += [_Row(one, first + place, batch_id) for place, one in enumerate(own)]
    return written


def _take_back(cursor: Cursor, written: Sequence[_Row], now: datetime) -> list[int]:
    """Returns the pools that can pay with it again."""
    all_taken = []
    for one in written:
        change = one.change
        taken = taking_back.TakenBack(
            one.id, one.batch_id, change.event, change.actor, change.reason
        )
        taking_back.choose(taken, mt=-change.mt)
        one.debited_mt = -taken.refunded_mt
        one.priced_mt, one.uncovered_mt = -taken.priced_mt, -taken.uncovered_mt
        all_taken.append(taken)
    taking_back.write(cursor, all_taken, now=now)
    limit_usage.add(
        cursor,
        (
            (event.subscriber_id, event.api_key_id, day_of(event.occurred_at), one.change.mt)
            for one in written
            for event in [one.change.event]
        ),
    )
    return sorted(set().union(*(taken.refilled_pools for taken in all_taken)))


def _charge(cursor: Cursor, written: Sequence[_Row], now: datetime) -> None:
    """More is charged like new usage of the event's own time."""
    usages = []
    for one in written:
        event = one.change.event
        usages.append(
            Usage(
                one.id,
                one.batch_id,
                event.subscriber_id,
                event.model_id,
                event.occurred_at,
                copied_time(event.occurred_at),
                day_of(event.occurred_at),
                one.change.mt,
                event.api_key_id,
            )
        )
    if usages:
        charge(cursor, usages, now=now)
    for one, usage in zip(written, usages, strict=True):
        one.late = usage.late
        one.debited_mt = usage.debited_mt
        one.priced_mt, one.uncovered_mt = usage.priced_mt, usage.uncovered_mt


def _amendment(one: _Row, now: datetime) -> Amendment:
    change, event = one.change, one.change.event
    return Amendment(
        id=one.id,
        batch_id=one.batch_id,
        event_id=event.id,
        subscriber_id=event.subscriber_id,
        model_id=event.model_id,
        weight_id=change.weight_id,
        kind=change.kind,
        occurred_at=event.occurred_at,
        late=one.late,
        recorded_at=now,
        input_tokens=change.counts.input,
        cached_tokens=change.counts.cached,
        output_tokens=change.counts.output,
        reasoning_tokens=change.counts.reasoning,
        mt=change.mt,
        actor=change.actor,
        reason=change.reason,
        key=change.key,
    )


def _record(cursor: Cursor, written: Sequence[_Row], now: datetime) -> None:
    """The batches of the amendments with their tallies by day of use: no events, signed mt."""
    batches: dict[int, Batch] = {}
    for one in written:
        event = one.change.event
        if one.batch_id not in batches:
            batches[one.batch_id] = Batch(one.batch_id, event.node_id, UsageBatch.Kind.CORRECTION)
        batches[one.batch_id].by_day[day_of(event.occurred_at)].add(
            Tally(
                accepted_mt=one.change.mt,
                debited_mt=one.debited_mt,
                overage_mt=one.priced_mt,
                uncovered_mt=one.uncovered_mt,
            )
        )
    add_batches(cursor, [batches[number] for number in sorted(batches)], now=now)
