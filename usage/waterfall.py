"""The waterfall: which buckets pay for an event, in which order. Pure, exact, in millitokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(slots=True)
class OpenBucket:
    """A bucket as charging sees it: `available_mt` is neither used nor reserved, `size_mt` is all
    that was ever granted into it."""

    id: int
    priority: int
    valid_from: datetime
    valid_until: datetime
    model_ids: frozenset[int]
    created_at: datetime
    available_mt: int
    size_mt: int

    def pays_for(self, *, model_id: int, at: datetime) -> bool:
        """Whether an event of this model at this instant may draw on the bucket."""
        return self.valid_from <= at < self.valid_until and (
            not self.model_ids or model_id in self.model_ids
        )


def in_burn_order(buckets: Iterable[OpenBucket]) -> list[OpenBucket]:
    """Priority, earliest expiry, model-restricted first, creation, id."""
    return sorted(
        buckets,
        key=lambda bucket: (
            bucket.priority,
            bucket.valid_until,
            not bucket.model_ids,
            bucket.created_at,
            bucket.id,
        ),
    )


def burn(
    buckets: Sequence[OpenBucket], *, model_id: int, at: datetime, mt: int
) -> tuple[list[tuple[int, int]], int]:
    """Take mt from buckets that stand in burn order, lowering `available_mt`.

    Returns what was taken as (bucket id, mt) and what no bucket could cover.
    """
    taken: list[tuple[int, int]] = []
    for bucket in buckets:
        if mt == 0:
            break
        if bucket.available_mt > 0 and bucket.pays_for(model_id=model_id, at=at):
            part = min(bucket.available_mt, mt)
            bucket.available_mt -= part
            mt -= part
            taken.append((bucket.id, part))
    return taken, mt
