"""A second chance for refused events: replayed after the cause is mended, or dismissed."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from django.db import transaction

from config.errors import DomainError

from .batches import BatchResult, Tally
from .ingest import ingest
from .models import Node, QuarantinedEvent, UsageBatch

MOST = 10_000


class ReplayRefused(DomainError):
    """Nothing to replay, or too much at once."""

    code = "replay_refused"
    status = 409
    title = "Cannot be replayed"


def replay(*, quarantined_ids: Sequence[int], actor: str, now: datetime) -> list[BatchResult]:
    """Send open quarantined events in again as their node did, one batch a node.

    Those now counted (or found to be counted already) are settled; the others stay open, and the
    copy that the replay would leave in quarantine is dismissed in favour of the older evidence.
    """
    if len(quarantined_ids) > MOST:
        raise ReplayRefused(f"Replay at most {MOST:,} events at once.")
    rows = QuarantinedEvent.objects.filter(id__in=quarantined_ids, state="open").order_by("id")
    by_node: dict[int, list[QuarantinedEvent]] = defaultdict(list)
    for row in rows:
        by_node[row.node_id].append(row)
    if not by_node:
        raise ReplayRefused("None of these events is open.")
    return [
        _replay_node(node_id=node_id, rows=rows, actor=actor, now=now)
        for node_id, rows in sorted(by_node.items())
    ]


def _replay_node(
    *, node_id: int, rows: Sequence[QuarantinedEvent], actor: str, now: datetime
) -> BatchResult:
    result = ingest(
        node=Node.objects.get(id=node_id),
        events=[row.body.encode() for row in rows],
        now=now,
        kind=UsageBatch.Kind.REPLAY,
    )
    failed = {refusal.position for refusal in result.refusals}
    settled = [row.pk for position, row in enumerate(rows) if position not in failed]
    with transaction.atomic():
        QuarantinedEvent.objects.filter(id__in=settled, state="open").update(
            state=QuarantinedEvent.State.REPLAYED,
            settled_at=now,
            settled_by=actor,
            replay_batch_id=result.batch_id,
        )
        QuarantinedEvent.objects.filter(batch_id=result.batch_id, state="open").update(
            state=QuarantinedEvent.State.DISMISSED, settled_at=now, settled_by=actor
        )
    return result


def dismiss(*, quarantined_ids: Sequence[int], actor: str, now: datetime) -> int:
    """Settle open events that shall never count; they stay as evidence. Returns how many."""
    return QuarantinedEvent.objects.filter(id__in=quarantined_ids, state="open").update(
        state=QuarantinedEvent.State.DISMISSED, settled_at=now, settled_by=actor
    )


def combined(results: Sequence[BatchResult]) -> Tally:
    """The counts of several batches as one."""
    total = Tally()
    for result in results:
        total.add(result.tally)
    return total
