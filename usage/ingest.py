"""A usage event's way in: read, resolve, claim its key, charge, record; one transaction for all
deliveries in hand, mostly one batch.

Whatever a batch holds, the answer tells what happened to each event; what was refused or
conflicts is kept in quarantine. A batch that is sent again finds its keys taken.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
from django.db import transaction

from config.retrying import retry_transaction

from .batches import (
    EVENTS_PER_BATCH,
    Batch,
    BatchResult,
    add_batches,
    next_batches,
    quarantine,
)
from .charging import Usage, charge
from .database import NULL, Cursor, copy_lines, escaped, fast_cursor
from .decoding import Candidate, Refusal, read_events
from .identity import Verdict, judge
from .locking import Profile
from .models import Node, UsageBatch
from .periods import day_of
from .resolving import RatedWeight, Subjects, Weights

EVENT_COLUMNS = (
    "id, batch_id, node_id, source, event_id, subscriber_id, api_key_id, model_id, weight_id, "
    "occurred_at, input_tokens, cached_tokens, output_tokens, reasoning_tokens, mt, late"
)

BLOCKED = """
    SELECT profile.subscriber_id, profile.blocked
      FROM usage_chargingprofile AS profile
     WHERE profile.subscriber_id = ANY(%(ids)s) AND profile.blocked <> ''
     ORDER BY profile.subscriber_id
"""


class Delivery(msgspec.Struct, frozen=True):
    """Raw JSON events that a node sent in one request; `sequence` is its own number of the batch,
    if it numbers them."""

    node: Node
    events: Sequence[bytes]
    kind: str = UsageBatch.Kind.EVENTS
    sequence: int | None = None


class Resolved(msgspec.Struct, gc=False):
    """A readable event with its subscriber and the weight of its model at its time."""

    event: Candidate
    subscriber_id: int
    api_key_id: int | None
    weight: RatedWeight


class Claimed(msgspec.Struct):
    """A batch whose keys are taken: `usages` are its new events, and `lines` the same as COPY
    wants them but for the last column, which charging decides."""

    batch: Batch
    subjects: list[tuple[int, str]] = []  # (subscriber id, as named) of new events and repeats
    usages: list[Usage] = []
    lines: list[str] = []
    refusals: list[Refusal] = []


def ingest(
    *,
    node: Node,
    events: Sequence[bytes],
    now: datetime,
    kind: str = UsageBatch.Kind.EVENTS,
    sequence: int | None = None,
) -> BatchResult:
    """Count a batch of raw JSON events reported by a node; safe to send again, whole or in part.

    Raises django.db errors when the database is away; then nothing of the batch is stored.
    """
    [result] = ingest_together([Delivery(node, events, kind, sequence)], now=now)
    return result


def ingest_together(deliveries: Sequence[Delivery], *, now: datetime) -> list[BatchResult]:
    """Count several deliveries in one transaction, a batch each, as if they came one after the
    other; all of them are stored or none is."""
    read = [read_events(delivery.events, now=now) for delivery in deliveries]
    try:
        return retry_transaction(lambda: _ingest(deliveries, read, now, may_be_late=False))
    except _Late:
        return retry_transaction(lambda: _ingest(deliveries, read, now, may_be_late=True))


class _Late(Exception):
    """An event comes late, though it was written as one that does not; all is rolled back."""


@transaction.atomic
def _ingest(
    deliveries: Sequence[Delivery],
    read: Sequence[Sequence[Candidate | Refusal]],
    now: datetime,
    *,
    may_be_late: bool,
) -> list[BatchResult]:
    """Nearly no event is late, so at first all are written as such before anybody is locked, and
    locks are held for less time."""
    with fast_cursor() as cursor:
        batches = claim(cursor, deliveries, read, now=now)
        if not may_be_late:
            write_events(cursor, batches)
        usages = [usage for batch in batches for usage in batch.usages]
        standing = charge(cursor, usages, now=now)
        if may_be_late:
            write_events(cursor, batches)
        elif any(usage.late for usage in usages):
            raise _Late
        return record(cursor, batches, profiles=standing.profiles, now=now)


def claim(
    cursor: Cursor,
    deliveries: Sequence[Delivery],
    read: Sequence[Sequence[Candidate | Refusal]],
    *,
    now: datetime,
) -> list[Claimed]:
    """Resolve events and claim their keys; to be charged and recorded in the same transaction.

    Keys come before the locks of subscribers, always, so that nobody waits crosswise.
    """
    batches = [
        Claimed(Batch(number, delivery.node.pk, delivery.kind, delivery.sequence))
        for number, delivery in zip(next_batches(cursor, len(deliveries)), deliveries, strict=True)
    ]
    own = [
        _of_own_sources(delivery.node, events, batch.refusals)
        for batch, delivery, events in zip(batches, deliveries, read, strict=True)
    ]
    resolved = _resolve(cursor, batches, own)
    events = [item.event for items in resolved for item in items]
    verdicts = iter(judge(cursor, events, day=day_of(now)))
    for batch, items in zip(batches, resolved, strict=True):
        for item in items:
            verdict = next(verdicts)
            if verdict is Verdict.NEW:
                _take(batch, item)
            elif verdict is Verdict.DUPLICATE:
                _repeat(batch, item)
            else:
                detail = "An event with this source and id was counted with another content."
                batch.refusals.append(refuse(item.event, "conflict", detail))
    return batches


def _of_own_sources(
    node: Node, events: Iterable[Candidate | Refusal], refusals: list[Refusal]
) -> list[Candidate]:
    """The readable events of this node's own sources; the rest joins the refusals."""
    candidates: list[Candidate] = []
    own: set[str] = set()
    for item in events:
        if isinstance(item, Refusal):
            refusals.append(item)
        elif item.source in own or node.owns(item.source):
            own.add(item.source)
            candidates.append(item)
        else:
            detail = f"Node {node.name} does not speak for source {item.source!r}."
            refusals.append(refuse(item, "not_your_source", detail))
    return candidates


def refuse(event: Candidate, code: str, detail: str) -> Refusal:
    """The refusal of an event that reads well."""
    return Refusal(
        event.position, event.raw, event.id, event.source, event.subject, event.day, code, detail
    )


def _resolve(
    cursor: Cursor, batches: Sequence[Claimed], candidates: Sequence[Sequence[Candidate]]
) -> list[list[Resolved]]:
    """What could be resolved, batch by batch; the rest joins the refusals."""
    subjects = Subjects(cursor, {event.subject for events in candidates for event in events})
    weights = Weights(cursor)
    resolved: list[list[Resolved]] = []
    for batch, events in zip(batches, candidates, strict=True):
        found: list[Resolved] = []
        for event in events:
            subject = subjects.at(subject=event.subject, at=event.occurred_at)
            weight = weights.at(model=event.model, at=event.occurred_at)
            if subject is None:
                detail = f"No subscriber has {event.subject!r} as number, id or key."
                batch.refusals.append(refuse(event, "unknown_subscriber", detail))
            elif weight is None:
                detail = f"Model {event.model!r} has no weight at {event.occurred_at.isoformat()}."
                batch.refusals.append(refuse(event, "unknown_model", detail))
            else:
                found.append(Resolved(event, subject[0], subject[1], weight))
        resolved.append(found)
    return resolved


def _take(batch: Claimed, item: Resolved) -> None:
    """A new event joins its batch, to be charged and written."""
    event, weight, about, owner = item.event, item.weight, batch.batch, item.subscriber_id
    number = about.id * EVENTS_PER_BATCH + event.position
    at, model_id, mt = event.occurred_at, weight.model_id, weight.mt(event.counts)
    computed, cached, output, reasoning = event.counts
    batch.subjects.append((owner, event.subject))
    batch.usages.append(Usage(number, about.id, owner, model_id, at, event.day, mt))
    batch.lines.append(
        f"{number}\t{about.id}\t{about.node_id}\t{escaped(event.source)}\t{escaped(event.id)}\t"
        f"{owner}\t{item.api_key_id or NULL}\t{model_id}\t{weight.id}\t"
        f"{at}\t{computed}\t{cached}\t{output}\t{reasoning}\t{mt}\t"
    )


def _repeat(batch: Claimed, item: Resolved) -> None:
    """A repeat is counted as such, and its subject is told of when blocked."""
    batch.subjects.append((item.subscriber_id, item.event.subject))
    tally = batch.batch.by_day[item.event.day]
    tally.received += 1
    tally.duplicate += 1


def write_events(cursor: Cursor, batches: Sequence[Claimed]) -> None:
    """Write the new events of batches, late ones as charging has marked them."""
    copy_lines(
        cursor,
        table="usage_usageevent",
        columns=EVENT_COLUMNS,
        lines=(
            f"{line}{'ft'[usage.late]}"
            for batch in batches
            for line, usage in zip(batch.lines, batch.usages, strict=True)
        ),
    )


def record(
    cursor: Cursor, batches: Sequence[Claimed], *, profiles: dict[int, Profile], now: datetime
) -> list[BatchResult]:
    """Write what became of charged batches: their counts, and the evidence of what was refused."""
    for batch in batches:
        _count(batch)
    totals = add_batches(cursor, [batch.batch for batch in batches], now=now)
    blocked = _blocked(cursor, batches, profiles)
    results = []
    for batch, total in zip(batches, totals, strict=True):
        number, node_id = batch.batch.id, batch.batch.node_id
        refusals = sorted(batch.refusals, key=lambda one: one.position)
        if refusals:
            quarantine(batch_id=number, node_id=node_id, refusals=refusals, now=now)
        exhausted = {
            (subject, blocked[owner]) for owner, subject in batch.subjects if owner in blocked
        }
        results.append(BatchResult(number, total, refusals, sorted(exhausted)))
    return results


def _count(batch: Claimed) -> None:
    """Add new and refused events to the batch's tallies; repeats are counted already."""
    by_day = batch.batch.by_day
    for usage in batch.usages:
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
    for refusal in batch.refusals:
        tally = by_day[refusal.day]
        tally.received += 1
        if refusal.code == "conflict":
            tally.conflict += 1
        else:
            tally.rejected += 1


def _blocked(
    cursor: Cursor, batches: Sequence[Claimed], profiles: dict[int, Profile]
) -> dict[int, str]:
    """Why subscribers of these batches must not be served any more; those of repeats too, since
    the answer that said so may have been lost."""
    blocked = {owner: profile.blocked for owner, profile in profiles.items() if profile.blocked}
    named = {owner for batch in batches for owner, _subject in batch.subjects}
    if others := sorted(named - profiles.keys()):
        blocked |= dict(cursor.execute(BLOCKED, {"ids": others}).fetchall())
    return blocked
