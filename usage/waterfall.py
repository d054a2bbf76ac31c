"""The waterfall: which buckets pay for an event, in which order. Pure, exact, in millitokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from .periods import minute_of_day

WHOLE_DAY = 1440  # minutes


@dataclass(slots=True)
class OpenBucket:
    """A bucket as charging sees it: `available_mt` is neither used nor reserved, `size_mt` is all
    that was ever granted into it. A pool's bucket is one object for all its members."""

    id: int
    priority: int
    valid_from: datetime
    valid_until: datetime
    model_ids: frozenset[int]
    created_at: datetime
    available_mt: int
    size_mt: int
    reserved_mt: int = 0
    pool_id: int | None = None
    minute_from: int = 0
    minute_until: int = WHOLE_DAY

    def is_valid(self, at: datetime) -> bool:
        """Whether the instant lies in its validity, and in its hours if it has some."""
        if not self.valid_from <= at < self.valid_until:
            return False
        if self.minute_from == 0 and self.minute_until == WHOLE_DAY:
            return True
        minute = minute_of_day(at)
        if self.minute_from < self.minute_until:
            return self.minute_from <= minute < self.minute_until
        return minute >= self.minute_from or minute < self.minute_until

    def pays_for(self, *, model_id: int, at: datetime) -> bool:
        """Whether an event of this model at this instant may draw on the bucket."""
        return (not self.model_ids or model_id in self.model_ids) and self.is_valid(at)


def in_burn_order(buckets: Iterable[OpenBucket], *, pool_first: bool = False) -> list[OpenBucket]:
    """Own before pool's (or the reverse), priority, earliest expiry, model-restricted first,
    creation, id."""
    return sorted(
        buckets,
        key=lambda bucket: (
            (bucket.pool_id is None) is pool_first,
            bucket.priority,
            bucket.valid_until,
            not bucket.model_ids,
            bucket.created_at,
            bucket.id,
        ),
    )


def burn(
    buckets: Sequence[OpenBucket],
    *,
    model_id: int,
    at: datetime,
    mt: int,
    pool_mt: int | None = None,
) -> tuple[list[tuple[OpenBucket, int]], int]:
    """Take mt from buckets that stand in burn order, lowering `available_mt`.

    Pool buckets give at most `pool_mt` in all; None is for a caller whose buckets are its own.
    Returns what was taken as (bucket, mt) and what no bucket could cover.
    """
    taken: list[tuple[OpenBucket, int]] = []
    for bucket in buckets:
        if mt == 0:
            break
        if bucket.available_mt > 0 and bucket.pays_for(model_id=model_id, at=at):
            part = min(bucket.available_mt, mt)
            if bucket.pool_id is not None:
                assert pool_mt is not None, "a pool's bucket without the member's allowance"
                part = min(part, pool_mt)
                pool_mt -= part
            if part:
                bucket.available_mt -= part
                mt -= part
                taken.append((bucket, part))
    return taken, mt
