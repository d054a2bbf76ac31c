"""What usage events amount to, their amendments included, and who pays for them: reads only."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from .database import Cursor
from .models import Amendment, UsageEvent
from .normalising import Counts
from .periods import day_of

EVENTS = """
    SELECT event.id, event.node_id, event.subscriber_id, event.api_key_id, event.model_id,
           event.weight_id, event.occurred_at, event.late, event.mt, event.input_tokens,
           event.cached_tokens, event.output_tokens, event.reasoning_tokens
      FROM usage_usageevent AS event
     WHERE event.id = ANY(%(ids)s)
     ORDER BY event.id
"""

AMENDMENTS = """
    SELECT amendment.event_id, amendment.id, amendment.kind, amendment.weight_id, amendment.late,
           amendment.mt, amendment.input_tokens, amendment.cached_tokens,
           amendment.output_tokens, amendment.reasoning_tokens
      FROM usage_amendment AS amendment
     WHERE amendment.event_id = ANY(%(ids)s)
     ORDER BY amendment.event_id, amendment.id
"""

# What buckets paid (below zero) and were given back, oldest first; events and amendments alike
# stand behind an entry. Nothing is recorded long before its event's time. A bucket that is void or
# closed pays nothing any more, so what returns to it is lost again: as void, or as expired.
PAYMENTS = """
    SELECT entry.event_id, entry.bucket_id, entry.amount_mt, entry.recorded_at, bucket.pool_id,
           CASE WHEN EXISTS (SELECT 1 FROM usage_movement AS movement
                              WHERE movement.bucket_id = bucket.id AND movement.kind = 'void')
                THEN 'void'
                WHEN bucket.closed_at IS NOT NULL THEN 'expiry'
                ELSE '' END AS lost_as
      FROM usage_ledgerentry AS entry
      JOIN usage_bucket AS bucket ON bucket.id = entry.bucket_id
     WHERE entry.event_id = ANY(%(ids)s) AND entry.kind IN ('debit', 'refund')
       AND entry.recorded_at >= %(since)s
     ORDER BY entry.id
"""

BEYOND = """
    SELECT overage.event_id, overage.account_id, overage.priced, overage.fen_per_million,
           overage.cycle, overage.mt
      FROM usage_overage AS overage
     WHERE overage.event_id = ANY(%(ids)s)
       AND overage.subscriber_id = ANY(%(owners)s) AND overage.cycle = ANY(%(cycles)s)
     ORDER BY overage.id
"""

CLOCKS_APART = timedelta(days=1)  # more than a node's clock may be ahead of ours


@dataclass(slots=True)
class Payment:
    """What one bucket paid and still bears; `day` is that on which a pool's cap counted it.

    `lost_as` is the kind of entry by which what returns is lost at once: none while it can pay.
    """

    bucket_id: int
    pool_id: int | None
    lost_as: str
    day: date
    mt: int


@dataclass(slots=True)
class Beyond:
    """Overage of one price (0: uncovered) that still stands."""

    account_id: int
    priced: bool
    fen_per_million: int
    cycle: date
    mt: int


@dataclass(slots=True)
class NetEvent:
    """An event as it stands now: `counts` and `mt` are the sums of its row and its amendments,
    `payments` and `beyond` lie in the order in which they came."""

    id: int
    node_id: int
    subscriber_id: int
    api_key_id: int | None
    model_id: int
    weight_id: int
    occurred_at: datetime
    late: bool
    mt: int
    counts: Counts
    voided: bool = False
    payments: list[Payment] = field(default_factory=list)
    beyond: list[Beyond] = field(default_factory=list)


def net_events(cursor: Cursor, ids: Sequence[int]) -> dict[int, NetEvent]:
    """The events of these ids that are stored, as they stand; exact while their subscribers'
    profiles are locked."""
    events: dict[int, NetEvent] = {}
    for row in cursor.execute(EVENTS, {"ids": sorted(ids)}):
        number, node, owner, key, model, weight, at, late, mt, *counts = row
        about = number, node, owner, key, model, weight, at, late, mt
        events[number] = NetEvent(*about, Counts(*counts))
    if not events:
        return events
    behind = {number: number for number in events}  # an entry's id to its event's
    late = {number: event.late for number, event in events.items()}
    for number, amendment, kind, weight, is_late, mt, *counts in cursor.execute(
        AMENDMENTS, {"ids": sorted(events)}
    ):
        event = events[number]
        behind[amendment], late[amendment] = number, is_late
        event.mt += mt
        event.counts = plus(event.counts, Counts(*counts))
        event.weight_id = weight
        event.voided = event.voided or kind == Amendment.Kind.VOID
    _read_payments(cursor, events, behind, late)
    _read_beyond(cursor, events, behind)
    return events


def plus(one: Counts, other: Counts) -> Counts:
    """The sum of two counts, kind by kind."""
    return Counts(*(a + b for a, b in zip(one, other, strict=True)))


def minus(one: Counts, other: Counts) -> Counts:
    """The difference of two counts, kind by kind."""
    return Counts(*(a - b for a, b in zip(one, other, strict=True)))


def _read_payments(
    cursor: Cursor, events: dict[int, NetEvent], behind: dict[int, int], late: dict[int, bool]
) -> None:
    since = min(event.occurred_at for event in events.values()) - CLOCKS_APART
    rows = cursor.execute(PAYMENTS, {"ids": sorted(behind), "since": since})
    for number, bucket, amount, recorded, pool, lost_as in rows:
        event = events[behind[number]]
        if amount < 0:
            day = day_of(recorded if late[number] else event.occurred_at)
            event.payments.append(Payment(bucket, pool, lost_as, day, -amount))
            continue
        for payment in reversed(event.payments):
            if payment.bucket_id == bucket:
                part = min(amount, payment.mt)
                payment.mt -= part
                amount -= part
        assert amount == 0, "a bucket was given back more than it had paid"


def _read_beyond(cursor: Cursor, events: dict[int, NetEvent], behind: dict[int, int]) -> None:
    rows = cursor.execute(
        BEYOND,
        {
            "ids": sorted(behind),
            "owners": sorted({event.subscriber_id for event in events.values()}),
            "cycles": sorted({day_of(e.occurred_at).replace(day=1) for e in events.values()}),
        },
    )
    for number, account, priced, fen, cycle, mt in rows:
        event = events[behind[number]]
        if mt > 0:
            event.beyond.append(Beyond(account, priced, fen, cycle, mt))
            continue
        taken = -mt
        for part in reversed(event.beyond):
            if (part.account_id, part.priced, part.fen_per_million) == (account, priced, fen):
                less = min(taken, part.mt)
                part.mt -= less
                taken -= less
        assert taken == 0, "more overage was taken back than there was"


def as_they_stand(events: Sequence[UsageEvent]) -> list[UsageEvent]:
    """The same rows, for showing only, with counts and mt as amended; `voided` is set on each."""
    found = {event.pk: event for event in events}
    for event in events:
        event.voided = False  # type: ignore[attr-defined]
    for change in Amendment.objects.filter(event_id__in=found).order_by("id"):
        event = found[change.event_id]
        event.input_tokens += change.input_tokens
        event.cached_tokens += change.cached_tokens
        event.output_tokens += change.output_tokens
        event.reasoning_tokens += change.reasoning_tokens
        event.mt += change.mt
        if change.kind == Amendment.Kind.VOID:
            event.voided = True  # type: ignore[attr-defined]
    return list(events)
