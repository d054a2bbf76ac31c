"""The ledger's verbs: grant and close. An entry is written, a trigger moves the bucket.

Each verb locks the subscriber's charging profile (or the pool's row) first, as charging does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from config.errors import DomainError

from .database import Cursor, fast_cursor
from .enforcement import reconsider
from .locking import lock_owners, lock_pools, lock_profiles
from .models import NEVER, Bucket, LedgerEntry
from .rollover import roll_over
from .waterfall import WHOLE_DAY

MOST_TOKENS = 10**12  # in one bucket: far above any sale, and sums stay within 64 bits
MOST_MT = MOST_TOKENS * 1000

ADD_ENTRY = """
    INSERT INTO usage_ledgerentry (
        bucket_id, subscriber_id, kind, amount_mt, recorded_at, actor, reason)
    VALUES (
        %(bucket_id)s, %(subscriber_id)s, %(kind)s, %(amount_mt)s, %(now)s, %(actor)s, %(reason)s)
"""

# Buckets whose grace time is over, a bounded part; nothing of them may be held by a session.
DUE_TO_CLOSE = """
    SELECT bucket.id, bucket.subscriber_id, bucket.pool_id
      FROM usage_bucket AS bucket
     WHERE bucket.closed_at IS NULL AND bucket.close_at <= %(now)s AND bucket.reserved_mt = 0
     ORDER BY bucket.close_at, bucket.id
     LIMIT %(limit)s
"""

EXPIRE_REST = """
    INSERT INTO usage_ledgerentry (bucket_id, subscriber_id, kind, amount_mt, recorded_at)
    SELECT bucket.id, bucket.subscriber_id, 'expiry', -bucket.remaining_mt, %(now)s
      FROM usage_bucket AS bucket
     WHERE bucket.id = ANY(%(ids)s) AND bucket.closed_at IS NULL
       AND bucket.remaining_mt > 0 AND bucket.reserved_mt = 0
     ORDER BY bucket.id
"""

MARK_CLOSED = """
    UPDATE usage_bucket SET closed_at = %(now)s
     WHERE id = ANY(%(ids)s) AND closed_at IS NULL AND reserved_mt = 0
"""


class GrantReused(DomainError):
    """The key of a grant was used before, for something else."""

    code = "grant_reused"
    status = 409
    title = "The grant's key was used before"


class BucketRefused(DomainError):
    """The bucket is closed, or has less than the movement takes."""

    code = "bucket_refused"
    status = 409
    title = "The bucket refuses the movement"


class BucketFull(BucketRefused):
    """The bucket would grow beyond what one may hold."""

    code = "bucket_full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A bucket to open: amount_mt > 0 millitokens, valid in [valid_from, valid_until), once per
    key, owned by a subscriber or by a pool.

    It pays within minutes [minute_from, minute_until) of the billing-zone day (over midnight when
    from > until), for the models named (none: all). Of what is left at its close,
    `rollover_percent`, at most `rollover_cap_mt`, goes on to the next month.
    """

    kind: str
    name: str
    name_en: str
    amount_mt: int
    valid_from: datetime
    valid_until: datetime
    key: str
    subscriber_id: int | None = None
    pool_id: int | None = None
    priority: int | None = None
    model_ids: tuple[int, ...] = ()
    minute_from: int = 0
    minute_until: int = WHOLE_DAY
    rollover_percent: int = 0
    rollover_cap_mt: int = 0

    @property
    def burn_priority(self) -> int:
        """The priority told, or the usual one of its kind."""
        return Bucket.PRIORITIES[Bucket.Kind(self.kind)] if self.priority is None else self.priority

    def close_at(self, now: datetime) -> datetime:
        """When it closes. Granted for the past, it waits as long for its usage as any other."""
        until = max(self.valid_until, now)
        return until if until.year >= NEVER.year else until + _grace()

    def is_of(self, bucket: Bucket) -> bool:
        """Whether a bucket is what this grant opened."""
        asked = self.subscriber_id, self.pool_id, self.amount_mt
        return asked == (bucket.subscriber_id, bucket.pool_id, bucket.granted_mt)

    def make_bucket(self, now: datetime) -> Bucket:
        """The bucket, still empty; the caller holds the lock of its owner."""
        return Bucket.objects.create(
            subscriber_id=self.subscriber_id,
            pool_id=self.pool_id,
            kind=self.kind,
            name=self.name,
            name_en=self.name_en,
            priority=self.burn_priority,
            model_ids=list(self.model_ids),
            minute_from=self.minute_from,
            minute_until=self.minute_until,
            rollover_percent=self.rollover_percent,
            rollover_cap_mt=self.rollover_cap_mt,
            valid_from=self.valid_from,
            valid_until=self.valid_until,
            close_at=self.close_at(now),
            created_at=now,
            key=self.key,
        )


@transaction.atomic
def grant(
    *,
    subscriber_id: int,
    kind: str,
    name: str,
    name_en: str,
    amount_mt: int,
    valid_from: datetime,
    valid_until: datetime,
    key: str,
    now: datetime,
    priority: int | None = None,
    model_ids: Sequence[int] = (),
    minute_from: int = 0,
    minute_until: int = WHOLE_DAY,
    rollover_percent: int = 0,
    rollover_cap_mt: int = 0,
    actor: str = "",
    reason: str = "",
) -> tuple[Bucket, bool]:
    """Open a subscriber's bucket as `Grant` describes it, once per key.

    A repeat answers with the first bucket and False; the same key for another subscriber or
    amount raises GrantReused. Whoever was blocked for want of tokens is unblocked.
    """
    wanted = Grant(
        subscriber_id=subscriber_id,
        kind=kind,
        name=name,
        name_en=name_en,
        amount_mt=amount_mt,
        valid_from=valid_from,
        valid_until=valid_until,
        key=key,
        priority=priority,
        model_ids=tuple(model_ids),
        minute_from=minute_from,
        minute_until=minute_until,
        rollover_percent=rollover_percent,
        rollover_cap_mt=rollover_cap_mt,
    )
    with fast_cursor() as cursor:
        lock_profiles(cursor, [subscriber_id])
        bucket, opened = open_bucket(cursor, wanted, actor=actor, reason=reason, now=now)
    if opened:
        refill = f"bucket:{bucket.pk}" if valid_from <= now else ""
        reconsider(subscriber_ids=[subscriber_id], now=now, refill=refill)
        bucket.refresh_from_db()
    return bucket, opened


def open_bucket(
    cursor: Cursor, wanted: Grant, *, actor: str, reason: str, now: datetime
) -> tuple[Bucket, bool]:
    """Open a bucket once per key; the caller holds the lock of its owner and looks afterwards who
    may be served."""
    if not 0 < wanted.amount_mt <= MOST_MT:
        raise DomainError(f"A grant must be above zero and at most {MOST_TOKENS:,} tokens.")
    former = Bucket.objects.filter(key=wanted.key).first()
    if former is not None:
        if not wanted.is_of(former):
            raise GrantReused(f"{wanted.key} was granted before with other content.")
        return former, False
    bucket = wanted.make_bucket(now)
    add_entry(
        cursor,
        bucket=bucket,
        kind=LedgerEntry.Kind.GRANT,
        amount_mt=wanted.amount_mt,
        actor=actor,
        reason=reason,
        now=now,
    )
    return bucket, True


def refuse_overflow(bucket: Bucket, amount_mt: int) -> None:
    """Raise BucketFull if the bucket, so enlarged, would be larger than one may be."""
    size_mt = bucket.granted_mt + bucket.adjusted_mt
    if size_mt + amount_mt > MOST_MT:
        raise BucketFull(
            f"Bucket {bucket.pk} is of {size_mt} mt and takes {max(0, MOST_MT - size_mt)} mt more; "
            "move less, or grant a new one."
        )


def add_entry(
    cursor: Cursor,
    *,
    bucket: Bucket,
    kind: str,
    amount_mt: int,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    """Write one movement (signed mt) of a bucket whose owner the caller has locked."""
    cursor.execute(
        ADD_ENTRY,
        {
            "bucket_id": bucket.pk,
            "subscriber_id": bucket.subscriber_id,
            "kind": kind,
            "amount_mt": amount_mt,
            "now": now,
            "actor": actor,
            "reason": reason,
        },
    )


def _grace() -> timedelta:
    return timedelta(seconds=settings.CLOSE_GRACE_SECONDS)


def close_due_buckets(*, now: datetime, limit: int = 1000) -> int:
    """Close buckets whose grace time is over; what is left in them rolls over by their terms, and
    expires for the rest. Returns how many.

    One transaction for at most `limit` buckets; call again until it returns 0. Members of a pool
    whose bucket is closed are looked at by the sweep.
    """
    with transaction.atomic(), fast_cursor() as cursor:
        due = cursor.execute(DUE_TO_CLOSE, {"now": now, "limit": limit}).fetchall()
        ids = [bucket_id for bucket_id, _owner, _pool in due]
        owners = sorted({owner for _bucket_id, owner, _pool in due if owner is not None})
        pools = {pool for _bucket_id, _owner, pool in due if pool is not None}
        if not ids:
            return 0
        _profiles, memberships = lock_owners(cursor, owners, now=now)
        # The owners' pools as well: they are looked at below, and all are locked in one order.
        pools |= {stay.pool_id for stays in memberships.values() for stay in stays}
        lock_pools(cursor, sorted(pools))
        roll_over(cursor, ids, grace=_grace(), now=now)
        cursor.execute(EXPIRE_REST, {"now": now, "ids": ids})
        cursor.execute(MARK_CLOSED, {"now": now, "ids": ids})
        reconsider(subscriber_ids=owners, now=now)
    return len(ids)
