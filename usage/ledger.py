"""The ledger's verbs: grant, adjust, close. An entry is written, a trigger moves the bucket.

Each verb locks the subscriber's charging profile first, as charging does.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from config.errors import DomainError

from .database import fast_cursor
from .enforcement import reconsider
from .locking import lock_pools, lock_profiles
from .models import Bucket, LedgerEntry

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
    actor: str = "",
    reason: str = "",
) -> tuple[Bucket, bool]:
    """Open a bucket of amount_mt > 0 millitokens, valid in [valid_from, valid_until), once per key.

    A repeat answers with the first bucket and False; the same key for another subscriber or
    amount raises GrantReused. Whoever was blocked for want of tokens is unblocked.
    """
    if amount_mt <= 0:
        raise DomainError("A grant must be above zero.")
    with fast_cursor() as cursor:
        lock_profiles(cursor, [subscriber_id])
        former = Bucket.objects.filter(key=key).first()
        if former is not None:
            if (former.subscriber_id, former.granted_mt) != (subscriber_id, amount_mt):
                raise GrantReused(f"{key} was granted before with other content.")
            return former, False
        bucket = Bucket.objects.create(
            subscriber_id=subscriber_id,
            kind=kind,
            name=name,
            name_en=name_en,
            priority=Bucket.PRIORITIES[Bucket.Kind(kind)] if priority is None else priority,
            model_ids=list(model_ids),
            valid_from=valid_from,
            valid_until=valid_until,
            # A bucket granted for the past waits as long for its usage as any other.
            close_at=_after_grace(max(valid_until, now)),
            created_at=now,
            key=key,
        )
        cursor.execute(
            ADD_ENTRY,
            {
                "bucket_id": bucket.pk,
                "subscriber_id": subscriber_id,
                "kind": LedgerEntry.Kind.GRANT,
                "amount_mt": amount_mt,
                "now": now,
                "actor": actor,
                "reason": reason,
            },
        )
    reconsider(subscriber_ids=[subscriber_id], now=now)
    bucket.refresh_from_db()
    return bucket, True


def _after_grace(instant: datetime) -> datetime:
    if instant.year >= 9999:
        return instant
    return instant + timedelta(seconds=settings.CLOSE_GRACE_SECONDS)


@transaction.atomic
def adjust(*, bucket_id: int, amount_mt: int, actor: str, reason: str, now: datetime) -> Bucket:
    """Give to (or, below zero, take from) an open bucket, by staff and with a reason."""
    if not reason.strip():
        raise DomainError("An adjustment needs a reason.")
    owner = Bucket.objects.values_list("subscriber_id", flat=True).filter(pk=bucket_id).first()
    if owner is None:
        raise BucketRefused(f"There is no bucket {bucket_id}.", bucket=bucket_id)
    with fast_cursor() as cursor:
        lock_profiles(cursor, [owner])
        bucket = Bucket.objects.get(pk=bucket_id)
        if bucket.closed_at is not None:
            raise BucketRefused(f"Bucket {bucket_id} is closed; grant a new one.")
        free_mt = bucket.remaining_mt - bucket.reserved_mt
        if amount_mt == 0 or free_mt + amount_mt < 0:
            raise BucketRefused(f"Bucket {bucket_id} has {free_mt} mt free; adjust by less.")
        cursor.execute(
            ADD_ENTRY,
            {
                "bucket_id": bucket_id,
                "subscriber_id": owner,
                "kind": LedgerEntry.Kind.ADJUSTMENT,
                "amount_mt": amount_mt,
                "now": now,
                "actor": actor,
                "reason": reason,
            },
        )
    reconsider(subscriber_ids=[owner], now=now)
    bucket.refresh_from_db()
    return bucket


def close_due_buckets(*, now: datetime, limit: int = 1000) -> int:
    """Close buckets whose grace time is over; what is left in them expires. Returns how many.

    One transaction for at most `limit` buckets; call again until it returns 0. Members of a pool
    whose bucket is closed are looked at by the sweep.
    """
    with transaction.atomic(), fast_cursor() as cursor:
        due = cursor.execute(DUE_TO_CLOSE, {"now": now, "limit": limit}).fetchall()
        ids = [bucket_id for bucket_id, _owner, _pool in due]
        owners = sorted({owner for _bucket_id, owner, _pool in due if owner is not None})
        pools = sorted({pool for _bucket_id, _owner, pool in due if pool is not None})
        if not ids:
            return 0
        lock_profiles(cursor, owners)
        lock_pools(cursor, pools)
        cursor.execute(EXPIRE_REST, {"now": now, "ids": ids})
        cursor.execute(MARK_CLOSED, {"now": now, "ids": ids})
        reconsider(subscriber_ids=owners, now=now)
    return len(ids)
