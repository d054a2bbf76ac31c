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
from .database import Cursor, copy_lines, escaped, fast_cursor
from .decoding import Candidate, Refusal, read_events
from .identity import Verdict, judge
from .locking import Profile
from .models import Node, UsageBatch
from .periods import day_of
from .resolving import RatedWeight, Subjects, Weights

NULL = r"\N"  # of COPY
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
    return retry_transaction(lambda: _ingest(deliveries, read, now))


@transaction.atomic
def _ingest(
    deliveries: Sequence[Delivery], read: Sequence[Sequence[Candidate | Refusal]], now: datetime
) -> list[BatchResult]:
    with fast_cursor() as cursor:
        batches = claim(cursor, deliveries, read, now=now)
        usages = [usage for batch in batches for usage in batch.usages]
        standing = charge(cursor, usages, now=now)
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
    candidates: list[tuple[Claimed, Candidate]] = []
    for batch, delivery, events in zip(batches, deliveries, read, strict=True):
        own = _of_own_sources(delivery.node, events, batch.refusals)
        candidates += [(batch, event) for event in own]
    resolved = _resolve(cursor, candidates)
    verdicts = judge(cursor, [item.event for _batch, item in resolved], day=day_of(now))
    for (batch, item), verdict in zip(resolved, verdicts, strict=True):
        if verdict is Verdict.CONFLICT:
            detail = "An event with this source and id was counted with another content."
            batch.refusals.append(refuse(item.event, "conflict", detail))
            continue
        batch.subjects.append((item.subscriber_id, item.event.subject))
        if verdict is Verdict.NEW:
            _take(batch, item)
        else:
            tally = batch.batch.by_day[item.event.day]
            tally.received += 1
            tally.duplicate += 1
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
    cursor: Cursor, candidates: Sequence[tuple[Claimed, Candidate]]
) -> list[tuple[Claimed, Resolved]]:
    if not candidates:
        return []
    weights = Weights(cursor)
    subjects = Subjects(cursor, {event.subject for _batch, event in candidates})
    resolved = []
    for batch, event in candidates:
        subject = subjects.at(subject=event.subject, at=event.occurred_at)
        weight = weights.at(model=event.model, at=event.occurred_at)
        if subject is None:
            detail = f"No subscriber has {event.subject!r} as number, id or key."
            batch.refusals.append(refuse(event, "unknown_subscriber", detail))
        elif weight is None:
            detail = f"Model {event.model!r} has no weight at {event.occurred_at.isoformat()}."
            batch.refusals.append(refuse(event, "unknown_model", detail))
        else:
            resolved.append((batch, Resolved(event, subject[0], subject[1], weight)))
    return resolved


def _take(batch: Claimed, item: Resolved) -> None:
    """A new event joins its batch, to be charged and written."""
    event, weight, about = item.event, item.weight, batch.batch
    number = about.id * EVENTS_PER_BATCH + event.position
    mt = weight.mt(event.counts)
    computed, cached, output, reasoning = event.counts
    batch.usages.append(
        Usage(
            number, about.id, item.subscriber_id, weight.model_id, event.occurred_at, event.day, mt
        )
    )
    batch.lines.append(
        f"{number}\t{about.id}\t{about.node_id}\t{escaped(event.source)}\t{escaped(event.id)}\t"
        f"{item.subscriber_id}\t{item.api_key_id or NULL}\t{weight.model_id}\t{weight.id}\t"
        f"{event.occurred_at}\t{computed}\t{cached}\t{output}\t{reasoning}\t{mt}\t"
    )


def record(
    cursor: Cursor, batches: Sequence[Claimed], *, profiles: dict[int, Profile], now: datetime
) -> list[BatchResult]:
    """Write charged batches: events, counts, and the evidence of what was refused."""
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
        tally.received += 1
        tally.accepted += 1
        tally.accepted_mt += usage.mt
        tally.debited_mt += usage.debited_mt
        tally.overage_mt += usage.priced_mt
        tally.uncovered_mt += usage.uncovered_mt
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
