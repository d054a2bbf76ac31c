"""The waterfall: which buckets pay for an event, in which order. Pure, exact, in millitokens."""

from collections.abc import Iterable, Sequence

import msgspec

from .database import time_of
from .periods import minute_of_day

WHOLE_DAY = 1440  # minutes


class OpenBucket(msgspec.Struct, order=True, gc=False):
    """A bucket as charging sees it: `available_mt` is neither used nor reserved, `size_mt` is all
    that was ever granted into it. A pool's bucket is one object for all its members.

    Buckets of one owner (a subscriber or a pool) compare by their fields in the order written
    here, which is the burn order: priority, earliest expiry, model-restricted first, creation, id.

    Instants are whole microseconds since 2000 in UTC (`database.copied_time`), as PostgreSQL has
    them: a batch reads thousands of them and only compares most.
    """

    owner_id: int
    priority: int
    valid_until: int
    for_all_models: bool
    created_at: int
    id: int
    valid_from: int
    available_mt: int
    size_mt: int
    reserved_mt: int = 0
    model_ids: Sequence[int] | None = None  # unless it is for all models
    hours: Sequence[int] | None = None  # (from, until) minute of the day, unless it is for all
    pool_id: int | None = None

    def is_valid(self, at: int) -> bool:
        """Whether the instant lies in its validity, and in its hours if it has some."""
        if not self.valid_from <= at < self.valid_until:
            return False
        if self.hours is None:
            return True
        minute, (start, end) = minute_of_day(time_of(at)), self.hours
        return start <= minute < end if start < end else minute >= start or minute < end

    def pays_for(self, *, model_id: int, at: int) -> bool:
        """Whether an event of this model at this instant may draw on the bucket."""
        if not self.for_all_models and model_id not in (self.model_ids or ()):
            return False
        return self.is_valid(at)


def in_burn_order(buckets: Iterable[OpenBucket], *, pool_first: bool = False) -> list[OpenBucket]:
    """A subscriber's own buckets before those of its pool (or the reverse), each in the order in
    which they compare."""
    ordered = sorted(buckets)
    own = [bucket for bucket in ordered if bucket.pool_id is None]
    shared = [bucket for bucket in ordered if bucket.pool_id is not None]
    return shared + own if pool_first else own + shared


def burn(
    buckets: Sequence[OpenBucket],
    *,
    model_id: int,
    at: int,
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
        available = bucket.available_mt
        if available > 0 and bucket.pays_for(model_id=model_id, at=at):
            part = available if available < mt else mt
            if bucket.pool_id is not None:
                assert pool_mt is not None, "a pool's bucket without the member's allowance"
                part = min(part, pool_mt)
                pool_mt -= part
            if part:
                bucket.available_mt = available - part
                mt -= part
                taken.append((bucket, part))
    return taken, mt
