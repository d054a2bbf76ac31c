"""A usage event's way in: read, resolve, claim its key, charge, record; one transaction a batch.

Whatever a batch holds, the answer tells what happened to each event; what was refused or
conflicts is kept in quarantine. A batch that is sent again finds its keys taken.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from django.db import transaction

from config.retrying import retry_transaction

from .charging import Usage, charge
from .database import Cursor, copy_lines, escaped, fast_cursor
from .decoding import Candidate, Refusal, read_event
from .identity import Verdict, judge
from .locking import Profile
from .models import Node, QuarantinedEvent, UsageBatch
from .periods import day_of
from .resolving import RatedWeight, Subjects, Weights

EVENTS_PER_BATCH = 16_384  # event id = batch id x this + position

NEXT_BATCH = "SELECT nextval('usage_batch_id')"

NULL = r"\N"  # of COPY
EVENT_COLUMNS = (
    "id, batch_id, node_id, source, event_id, subscriber_id, api_key_id, model_id, weight_id, "
    "occurred_at, input_tokens, cached_tokens, output_tokens, reasoning_tokens, mt, late"
)

ADD_BATCH = """
    INSERT INTO usage_usagebatch (
        id, node_id, kind, sequence, received_at, received, accepted, duplicate, conflict,
        rejected, accepted_mt, debited_mt, overage_mt, uncovered_mt)
    VALUES (
        %(batch_id)s, %(node_id)s, %(kind)s, %(sequence)s, %(now)s, %(received)s, %(accepted)s,
        %(duplicate)s, %(conflict)s, %(rejected)s, %(accepted_mt)s, %(debited_mt)s, %(overage_mt)s,
        %(uncovered_mt)s)
"""

ADD_TALLY = """
    INSERT INTO usage_usagetally (
        batch_id, day, received, accepted, duplicate, conflict, rejected,
        accepted_mt, debited_mt, overage_mt, uncovered_mt)
    VALUES (
        %(batch_id)s, %(day)s, %(received)s, %(accepted)s, %(duplicate)s, %(conflict)s,
        %(rejected)s, %(accepted_mt)s, %(debited_mt)s, %(overage_mt)s, %(uncovered_mt)s)
"""

BLOCKED = """
    SELECT profile.subscriber_id, profile.blocked
      FROM usage_chargingprofile AS profile
     WHERE profile.subscriber_id = ANY(%(ids)s) AND profile.blocked <> ''
     ORDER BY profile.subscriber_id
"""

COUNTS = ("received", "accepted", "duplicate", "conflict", "rejected")
AMOUNTS = ("accepted_mt", "debited_mt", "overage_mt", "uncovered_mt")


@dataclass(slots=True)
class Tally:
    """Counts of events and sums of millitokens: of a batch, or of one day in it."""

    received: int = 0
    accepted: int = 0
    duplicate: int = 0
    conflict: int = 0
    rejected: int = 0
    accepted_mt: int = 0
    debited_mt: int = 0
    overage_mt: int = 0
    uncovered_mt: int = 0

    def add(self, other: "Tally") -> None:
        """Add another tally to this one."""
        for name in COUNTS + AMOUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_row(self) -> dict[str, object]:
        """The columns of a batch or tally row."""
        return {name: getattr(self, name) for name in COUNTS + AMOUNTS}


@dataclass(slots=True)
class BatchResult:
    """What happened to a batch: totals, the events not counted, and who is blocked now."""

    batch_id: int
    tally: Tally
    refusals: list[Refusal] = field(default_factory=list)
    exhausted: list[tuple[str, str]] = field(default_factory=list)  # (subject, reason)

    def shown(self) -> dict[str, Any]:
        """What nodes are told of the batch."""
        tally = self.tally
        return {
            "batch": self.batch_id,
            "accepted": tally.accepted,
            "duplicate": tally.duplicate,
            "conflict": tally.conflict,
            "rejected": tally.rejected,
            "errors": [
                {"index": one.position, "id": one.id, "code": one.code, "detail": one.detail}
                for one in self.refusals
            ],
            "exhausted": [
                {"subject": subject, "reason": reason} for subject, reason in self.exhausted
            ],
        }


@dataclass(slots=True)
class _Resolved:
    event: Candidate
    subscriber_id: int
    api_key_id: int | None
    weight: RatedWeight


@dataclass(slots=True)
class Claimed:
    """A batch whose keys are taken: `usages` are those of `fresh`, in the same order."""

    batch_id: int
    node: Node
    fresh: list[_Resolved]
    usages: list[Usage]
    duplicates: list[_Resolved]
    refusals: list[Refusal]


def ingest(
    *,
    node: Node,
    events: Sequence[bytes],
    now: datetime,
    kind: str = UsageBatch.Kind.EVENTS,
    sequence: int | None = None,
) -> BatchResult:
    """Count a batch of raw JSON events reported by a node; safe to send again, whole or in part.

    `sequence` is the node's own number of the batch, if it numbers them.
    Raises django.db errors when the database is away; then nothing of the batch is stored.
    """
    read = [read_event(position=position, raw=raw, now=now) for position, raw in enumerate(events)]
    return retry_transaction(
        lambda: _ingest(node=node, read=read, now=now, kind=kind, sequence=sequence)
    )


@transaction.atomic
def _ingest(
    *,
    node: Node,
    read: Sequence[Candidate | Refusal],
    now: datetime,
    kind: str,
    sequence: int | None,
) -> BatchResult:
    with fast_cursor() as cursor:
        batch = claim(cursor, node=node, read=read, now=now)
        profiles = charge(cursor, batch.usages, now=now).profiles
        return record(cursor, batch, profiles=profiles, kind=kind, now=now, sequence=sequence)


def claim(
    cursor: Cursor, *, node: Node, read: Sequence[Candidate | Refusal], now: datetime
) -> Claimed:
    """Resolve events and claim their keys; to be charged and recorded in the same transaction.

    Keys come before the locks of subscribers, always, so that nobody waits crosswise.
    """
    batch_id: int = cursor.execute(NEXT_BATCH).fetchone()[0]  # type: ignore[index]
    candidates, refusals = _split(node, read)
    resolved = _resolve(cursor, candidates, refusals)
    duplicates, fresh = _judge(cursor, resolved, refusals, now)
    usages = [
        Usage(
            batch_id * EVENTS_PER_BATCH + item.event.position,
            batch_id,
            item.subscriber_id,
            item.weight.model_id,
            item.event.occurred_at,
            item.weight.mt(item.event.counts),
        )
        for item in fresh
    ]
    return Claimed(batch_id, node, fresh, usages, duplicates, refusals)


def record(
    cursor: Cursor,
    batch: Claimed,
    *,
    profiles: dict[int, Profile],
    kind: str,
    now: datetime,
    sequence: int | None = None,
) -> BatchResult:
    """Write a charged batch: its events, its counts, and the evidence of what was refused."""
    _write_events(cursor, batch.node, batch.fresh, batch.usages)
    refusals = sorted(batch.refusals, key=lambda one: one.position)
    result = BatchResult(batch.batch_id, Tally(), refusals)
    by_day = _tallies(batch.usages, batch.duplicates, refusals)
    head = {"node_id": batch.node.pk, "kind": kind, "sequence": sequence, "now": now}
    _record(cursor, head=head, result=result, by_day=by_day)
    result.exhausted = _exhausted(cursor, [*batch.fresh, *batch.duplicates], profiles)
    return result


def _split(
    node: Node, read: Iterable[Candidate | Refusal]
) -> tuple[list[Candidate], list[Refusal]]:
    """Tell readable events of this node's own sources from the rest."""
    candidates: list[Candidate] = []
    refusals: list[Refusal] = []
    for item in read:
        if isinstance(item, Refusal):
            refusals.append(item)
        elif node.owns(item.source):
            candidates.append(item)
        else:
            detail = f"Node {node.name} does not speak for source {item.source!r}."
            refusals.append(refuse(item, "not_your_source", detail))
    return candidates, refusals


def refuse(event: Candidate, code: str, detail: str) -> Refusal:
    """The refusal of an event that reads well."""
    return Refusal(
        event.position,
        event.raw,
        event.id,
        event.source,
        event.subject,
        day_of(event.occurred_at),
        code,
        detail,
    )


def _resolve(
    cursor: Cursor, candidates: Sequence[Candidate], refusals: list[Refusal]
) -> list[_Resolved]:
    if not candidates:
        return []
    weights = Weights(cursor)
    subjects = Subjects(cursor, (event.subject for event in candidates))
    resolved = []
    for event in candidates:
        subject = subjects.at(subject=event.subject, at=event.occurred_at)
        weight = weights.at(model=event.model, at=event.occurred_at)
        if subject is None:
            detail = f"No subscriber has {event.subject!r} as number, id or key."
            refusals.append(refuse(event, "unknown_subscriber", detail))
        elif weight is None:
            detail = f"Model {event.model!r} has no weight at {event.occurred_at.isoformat()}."
            refusals.append(refuse(event, "unknown_model", detail))
        else:
            resolved.append(_Resolved(event, *subject, weight))
    return resolved


def _judge(
    cursor: Cursor, resolved: Sequence[_Resolved], refusals: list[Refusal], now: datetime
) -> tuple[list[_Resolved], list[_Resolved]]:
    """(repeats, new ones); conflicts join the refusals."""
    verdicts = judge(cursor, [item.event for item in resolved], day=day_of(now))
    duplicates: list[_Resolved] = []
    fresh: list[_Resolved] = []
    for item, verdict in zip(resolved, verdicts, strict=True):
        if verdict is Verdict.NEW:
            fresh.append(item)
        elif verdict is Verdict.DUPLICATE:
            duplicates.append(item)
        else:
            detail = "An event with this source and id was counted with another content."
            refusals.append(refuse(item.event, "conflict", detail))
    return duplicates, fresh


def _write_events(
    cursor: Cursor, node: Node, fresh: Sequence[_Resolved], usages: Sequence[Usage]
) -> None:
    copy_lines(
        cursor,
        table="usage_usageevent",
        columns=EVENT_COLUMNS,
        lines=(
            f"{usage.id}\t{usage.batch_id}\t{node.pk}\t{escaped(item.event.source)}\t"
            f"{escaped(item.event.id)}\t{item.subscriber_id}\t"
            f"{item.api_key_id or NULL}\t{usage.model_id}\t{item.weight.id}\t"
            f"{usage.occurred_at.isoformat()}\t{item.event.counts[0]}\t{item.event.counts[1]}\t"
            f"{item.event.counts[2]}\t{item.event.counts[3]}\t{usage.mt}\t{'ft'[usage.late]}"
            for item, usage in zip(fresh, usages, strict=True)
        ),
    )


def _tallies(
    usages: Sequence[Usage], duplicates: Sequence[_Resolved], refusals: Sequence[Refusal]
) -> dict[date, Tally]:
    by_day: dict[date, Tally] = defaultdict(Tally)
    for usage in usages:
        tally = by_day[day_of(usage.occurred_at)]
        tally.received += 1
        tally.accepted += 1
        tally.accepted_mt += usage.mt
        tally.debited_mt += usage.debited_mt
        tally.overage_mt += usage.priced_mt
        tally.uncovered_mt += usage.uncovered_mt
    for item in duplicates:
        tally = by_day[day_of(item.event.occurred_at)]
        tally.received += 1
        tally.duplicate += 1
    for refusal in refusals:
        tally = by_day[refusal.day]
        tally.received += 1
        if refusal.code == "conflict":
            tally.conflict += 1
        else:
            tally.rejected += 1
    return by_day


def _record(
    cursor: Cursor, *, head: dict[str, Any], result: BatchResult, by_day: dict[date, Tally]
) -> None:
    """The batch with its tallies, and the evidence of what was not counted."""
    for tally in by_day.values():
        result.tally.add(tally)
    head["batch_id"] = result.batch_id
    cursor.execute(ADD_BATCH, head | result.tally.as_row(), prepare=True)
    for day, tally in sorted(by_day.items()):
        row = {"batch_id": result.batch_id, "day": day} | tally.as_row()
        cursor.execute(ADD_TALLY, row, prepare=True)
    QuarantinedEvent.objects.bulk_create(
        [
            QuarantinedEvent(
                batch_id=result.batch_id,
                position=refusal.position,
                node_id=head["node_id"],
                source=refusal.source,
                event_id=refusal.id,
                code=refusal.code,
                detail=refusal.detail,
                body=_as_text(refusal.raw),
                received_at=head["now"],
            )
            for refusal in result.refusals
        ],
        batch_size=1000,
    )


def _as_text(raw: bytes) -> str:
    """A body as PostgreSQL can keep it: bytes that are no text, and NUL, are written as escapes."""
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def _exhausted(
    cursor: Cursor, counted: Sequence[_Resolved], profiles: dict[int, Profile]
) -> list[tuple[str, str]]:
    """The subjects of this batch that must not be served any more, each once; those of repeats
    too, since the answer that said so may have been lost."""
    blocked = {owner: profile.blocked for owner, profile in profiles.items()}
    others = sorted({item.subscriber_id for item in counted} - blocked.keys())
    if others:
        blocked |= dict(cursor.execute(BLOCKED, {"ids": others}).fetchall())
    return sorted(
        {
            (item.event.subject, blocked[item.subscriber_id])
            for item in counted
            if blocked.get(item.subscriber_id)
        }
    )
