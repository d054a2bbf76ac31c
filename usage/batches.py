"""What became of a batch: its counts by day, half of the proof, and the evidence of what was
refused. Ingest, quota sessions and corrections all write their batches here."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import msgspec

from .database import Cursor
from .decoding import Refusal
from .models import QuarantinedEvent

EVENTS_PER_BATCH = 16_384  # event id = batch id x this + position

NEXT_BATCHES = """
    SELECT nextval('usage_batch_id') FROM generate_series(1, %(count)s) AS place ORDER BY place
"""

ADD_BATCHES = """
    INSERT INTO usage_usagebatch (
        received_at, id, node_id, kind, sequence, received, accepted, duplicate, conflict,
        rejected, accepted_mt, debited_mt, overage_mt, uncovered_mt)
    SELECT %(now)s, batch.*
      FROM unnest(%(ids)s::bigint[], %(nodes)s::bigint[], %(kinds)s::text[],
                  %(sequences)s::bigint[], %(received)s::int[], %(accepted)s::int[],
                  %(duplicate)s::int[], %(conflict)s::int[], %(rejected)s::int[],
                  %(accepted_mt)s::bigint[], %(debited_mt)s::bigint[], %(overage_mt)s::bigint[],
                  %(uncovered_mt)s::bigint[]) AS batch
"""

ADD_TALLIES = """
    INSERT INTO usage_usagetally (
        batch_id, day, received, accepted, duplicate, conflict, rejected,
        accepted_mt, debited_mt, overage_mt, uncovered_mt)
    SELECT tally.*
      FROM unnest(%(ids)s::bigint[], %(days)s::date[], %(received)s::int[], %(accepted)s::int[],
                  %(duplicate)s::int[], %(conflict)s::int[], %(rejected)s::int[],
                  %(accepted_mt)s::bigint[], %(debited_mt)s::bigint[], %(overage_mt)s::bigint[],
                  %(uncovered_mt)s::bigint[]) AS tally
"""


class Tally(msgspec.Struct, gc=False):
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
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Batch(msgspec.Struct):
    """A batch to be written, with its tallies by billing day of use."""

    id: int
    node_id: int
    kind: str
    sequence: int | None = None
    by_day: dict[date, Tally] = msgspec.field(default_factory=lambda: defaultdict(Tally))

    def total(self) -> Tally:
        """All days together."""
        total = Tally()
        for tally in self.by_day.values():
            total.add(tally)
        return total


class BatchResult(msgspec.Struct):
    """What happened to a batch: totals, the events not counted, and who is blocked now."""

    batch_id: int
    tally: Tally
    refusals: list[Refusal] = []
    exhausted: list[tuple[str, str]] = []  # (subject, reason)

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


def next_batches(cursor: Cursor, count: int) -> list[int]:
    """Numbers of new batches, ascending."""
    rows = cursor.execute(NEXT_BATCHES, {"count": count}, prepare=True).fetchall()
    return [number for (number,) in rows]


def add_batches(cursor: Cursor, batches: Sequence[Batch], *, now: datetime) -> list[Tally]:
    """Write batches and their tallies; returns the total of each."""
    totals = [batch.total() for batch in batches]
    cursor.execute(
        ADD_BATCHES,
        {
            "now": now,
            "ids": [batch.id for batch in batches],
            "nodes": [batch.node_id for batch in batches],
            "kinds": [batch.kind for batch in batches],
            "sequences": [batch.sequence for batch in batches],
        }
        | _columns(totals),
        prepare=True,
    )
    days = [(batch.id, day) for batch in batches for day in sorted(batch.by_day)]
    tallies = [batch.by_day[day] for batch in batches for day in sorted(batch.by_day)]
    cursor.execute(
        ADD_TALLIES,
        {"ids": [number for number, _day in days], "days": [day for _number, day in days]}
        | _columns(tallies),
        prepare=True,
    )
    return totals


def _columns(tallies: Sequence[Tally]) -> dict[str, list[int]]:
    return {name: [getattr(one, name) for one in tallies] for name in Tally.__struct_fields__}


def quarantine(*, batch_id: int, node_id: int, refusals: Sequence[Refusal], now: datetime) -> None:
    """Keep what was not counted, with the reason; it can be replayed."""
    QuarantinedEvent.objects.bulk_create(
        [
            QuarantinedEvent(
                batch_id=batch_id,
                position=refusal.position,
                node_id=node_id,
                source=refusal.source,
                event_id=refusal.id,
                code=refusal.code,
                detail=refusal.detail,
                body=_as_text(refusal.raw),
                received_at=now,
            )
            for refusal in refusals
        ],
        batch_size=1000,
    )


def _as_text(raw: bytes) -> str:
    """A body as PostgreSQL can keep it: bytes that are no text, and NUL, are written as escapes."""
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
