"""What became of a batch: its counts by day, half of the proof, and the evidence of what was
refused. Ingest, quota sessions and corrections all write their batches here."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import msgspec

from .database import NULL, Cursor, copy_lines
from .decoding import Refusal
from .models import QuarantinedEvent

EVENTS_PER_BATCH = 16_384  # event id = batch id x this + position

NEXT_BATCHES = """
    SELECT nextval('usage_batch_id') FROM generate_series(1, %(count)s) AS place ORDER BY place
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

    def as_line(self) -> str:
        """The columns COUNTS as COPY wants them."""
        return "\t".join(map(str, msgspec.structs.astuple(self)))


COUNTS = ", ".join(Tally.__struct_fields__)


class Batch(msgspec.Struct):
    """A batch to be written, with its tallies by billing day of use."""

    id: int
    node_id: int
    kind: str
    sequence: int | None = None
    by_day: dict[date, Tally] = msgspec.field(default_factory=lambda: defaultdict(Tally))

    def total(self) -> Tally:
        """All days together; of one day, as most batches of single events are, that day's own."""
        if len(self.by_day) == 1:
            return next(iter(self.by_day.values()))
        total = Tally()
        for tally in self.by_day.values():
            total.add(tally)
        return total


class BatchResult(msgspec.Struct):
    """What happened to a batch: totals, the events not counted, who is blocked now, and which of
    its subjects draw on a pool."""

    batch_id: int
    tally: Tally
    refusals: list[Refusal] = []
    exhausted: list[tuple[str, str]] = []  # (subject, reason)
    pooled: list[tuple[str, int]] = []  # (subject, pool id)

    def and_later(self, later: "BatchResult") -> "BatchResult":
        """Tells also of what was counted of the same report in a batch of its own."""
        tally = Tally()
        tally.add(self.tally)
        tally.add(later.tally)
        refusals = sorted([*self.refusals, *later.refusals], key=lambda one: one.position)
        exhausted = sorted({*self.exhausted, *later.exhausted})
        pooled = [*self.pooled, *later.pooled]
        return BatchResult(self.batch_id, tally, refusals, exhausted, pooled)

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
    copy_lines(
        cursor,
        table="usage_usagebatch",
        columns=f"received_at, id, node_id, kind, sequence, {COUNTS}",
        lines=(
            f"{now}\t{batch.id}\t{batch.node_id}\t{batch.kind}\t"
            f"{NULL if batch.sequence is None else batch.sequence}\t{total.as_line()}"
            for batch, total in zip(batches, totals, strict=True)
        ),
    )
    copy_lines(
        cursor,
        table="usage_usagetally",
        columns=f"batch_id, day, {COUNTS}",
        lines=(
            f"{batch.id}\t{day}\t{tally.as_line()}"
            for batch in batches
            for day, tally in sorted(batch.by_day.items())
        ),
    )
    return totals


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
