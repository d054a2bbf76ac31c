"""Movements that staff ask for, each once per key: adjust a bucket, void it, transfer from it.

Each leaves ledger entries and one Movement, which keeps both ends and the amounts before and
after. Only what no session holds can be moved. Locks: the profiles concerned in order, or the pool.
"""

from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from config.errors import DomainError

from .database import Cursor, fast_cursor
from .enforcement import reconsider
from .ledger import BucketRefused, Grant, add_entry, refuse_overflow
from .locking import lock_pools, lock_profiles
from .models import Bucket, LedgerEntry, Movement
from .pools import open_members
from .profiles import refuse_unknown

LONGEST_KEY = 100


class MovementKeyReused(DomainError):
    """The key named another movement before."""

    code = "key_reused"
    status = 409
    title = "The key was used before"


class KeyOrReasonMissing(DomainError):
    """A movement is named by a key and explained by a reason."""

    code = "key_or_reason_missing"
    title = "A key and a reason are needed"


def adjust(
    *, bucket_id: int, amount_mt: int, key: str, actor: str, reason: str, now: datetime
) -> tuple[Movement, bool]:
    """Give to (or, below zero, take from) an open bucket; a repeat of the key answers False.

    BucketRefused when the bucket is unknown, closed, void or has less free than is taken,
    BucketFull when it would be larger than one may be; MovementKeyReused when the key named
    something else.
    """
    _check(key, reason)
    return _on_bucket(
        Movement(
            kind=Movement.Kind.ADJUSTMENT,
            bucket_id=bucket_id,
            amount_mt=amount_mt,
            key=key,
            actor=actor,
            reason=reason,
            at=now,
        )
    )


def void_bucket(
    *, bucket_id: int, key: str, actor: str, reason: str, now: datetime
) -> tuple[Movement, bool]:
    """Take back all that is left of an open bucket; it pays nothing any more. Errors as `adjust`;
    BucketRefused too while a session holds a part of it.

    The bucket stays open, empty, until its own end: what is used meanwhile is not late.
    """
    _check(key, reason)
    return _on_bucket(
        Movement(
            kind=Movement.Kind.VOID,
            bucket_id=bucket_id,
            key=key,
            actor=actor,
            reason=reason,
            at=now,
        )
    )


@transaction.atomic
def transfer(
    *,
    bucket_id: int,
    to_subscriber_id: int,
    amount_mt: int,
    key: str,
    actor: str,
    reason: str,
    now: datetime,
    into_new_bucket: bool = False,
) -> tuple[Movement, bool]:
    """Move amount_mt > 0 from a subscriber's bucket to another subscriber, under the same terms:
    into a bucket with the same end, models and hours, else (or if told so) into a new one.

    A repeat of the key answers False. BucketRefused as in `adjust`, and for a pool's bucket.
    """
    _check(key, reason)
    owner = Bucket.objects.values_list("subscriber_id", flat=True).filter(pk=bucket_id).first()
    if owner is None or owner == to_subscriber_id:
        raise BucketRefused(f"Bucket {bucket_id} is not another subscriber's own bucket.")
    movement = Movement(
        kind=Movement.Kind.TRANSFER,
        bucket_id=bucket_id,
        amount_mt=amount_mt,
        key=key,
        actor=actor,
        reason=reason,
        at=now,
    )
    refuse_unknown(to_subscriber_id)
    with fast_cursor() as cursor:
        profiles = lock_profiles(cursor, [owner, to_subscriber_id])
        former = _former(movement, to_subscriber_id)
        if former is not None:
            return former, False
        if profiles[to_subscriber_id].state == "terminated":
            raise BucketRefused(f"Subscriber {to_subscriber_id} is terminated.")
        bucket = _open_bucket(bucket_id)
        if bucket.valid_until <= now:
            raise BucketRefused(f"Bucket {bucket_id} is past its end; grant a new one.")
        if not 0 < amount_mt <= _free_mt(bucket):
            raise BucketRefused(f"Bucket {bucket_id} has {_free_mt(bucket)} mt free to transfer.")
        other = None if into_new_bucket else _fitting(bucket, to_subscriber_id, now)
        other = other or _following(bucket, to_subscriber_id, movement)
        refuse_overflow(other, amount_mt)
        movement.other_bucket = other
        movement.before_mt = bucket.remaining_mt
        movement.after_mt = bucket.remaining_mt - amount_mt
        movement.other_before_mt = other.remaining_mt
        movement.other_after_mt = other.remaining_mt + amount_mt
        _save(movement)
        _enter(cursor, movement, bucket, LedgerEntry.Kind.ADJUSTMENT, -amount_mt)
        _enter(cursor, movement, other, LedgerEntry.Kind.ADJUSTMENT, amount_mt)
    reconsider(subscriber_ids=[owner, to_subscriber_id], now=now)
    reconsider(subscriber_ids=[to_subscriber_id], now=now, refill=f"movement:{movement.pk}")
    return movement, True


def _on_bucket(movement: Movement) -> tuple[Movement, bool]:
    """Adjust or void one bucket, and see who may be served afterwards."""
    row = Bucket.objects.values_list("subscriber_id", "pool_id").filter(pk=movement.bucket_id)
    owner, pool_id = row.first() or (None, None)
    if owner is None and pool_id is None:
        raise BucketRefused(f"There is no bucket {movement.bucket_id}.")
    with transaction.atomic(), fast_cursor() as cursor:
        if owner is not None:
            lock_profiles(cursor, [owner])
        else:
            assert pool_id is not None  # a bucket has one owner
            lock_pools(cursor, [pool_id])
        former = _former(movement, owner)
        if former is not None:
            return former, False
        _move(cursor, movement)
        refill = f"movement:{movement.pk}" if movement.amount_mt > 0 else ""
        if owner is not None:
            reconsider(subscriber_ids=[owner], now=movement.at, refill=refill)
    if pool_id is not None and refill:
        open_members(pool_id=pool_id, refill=refill, now=movement.at)
    return movement, True


def _move(cursor: Cursor, movement: Movement) -> None:
    bucket = _open_bucket(movement.bucket_id)
    free_mt = _free_mt(bucket)
    kind = LedgerEntry.Kind.ADJUSTMENT
    if movement.kind == Movement.Kind.VOID:
        kind = LedgerEntry.Kind.VOID
        if bucket.reserved_mt:
            raise BucketRefused(
                f"Sessions hold {bucket.reserved_mt} mt of bucket {bucket.pk}; try again when "
                "they have ended."
            )
        movement.amount_mt = -free_mt
    elif movement.amount_mt == 0 or free_mt + movement.amount_mt < 0:
        raise BucketRefused(f"Bucket {bucket.pk} has {free_mt} mt free; adjust by less.")
    refuse_overflow(bucket, movement.amount_mt)
    movement.before_mt = bucket.remaining_mt
    movement.after_mt = bucket.remaining_mt + movement.amount_mt
    _save(movement)
    if movement.amount_mt:
        _enter(cursor, movement, bucket, kind, movement.amount_mt)


def _check(key: str, reason: str) -> None:
    if not 0 < len(key) <= LONGEST_KEY:
        raise KeyOrReasonMissing(f"Name the movement by a key of 1 to {LONGEST_KEY} characters.")
    if not reason.strip():
        raise KeyOrReasonMissing("A movement needs a reason.")


def _former(movement: Movement, owner: int | None) -> Movement | None:
    """What the key did before; `owner` is whose bucket was moved, of a transfer the receiver."""
    former = Movement.objects.select_related("bucket", "other_bucket").filter(key=movement.key)
    found = former.first()
    if found is None:
        return None
    same = (found.kind, found.bucket_id) == (movement.kind, movement.bucket_id)
    if movement.kind != Movement.Kind.VOID:
        same = same and found.amount_mt == movement.amount_mt
    if found.other_bucket is not None:
        same = same and found.other_bucket.subscriber_id == owner
    if not same:
        raise MovementKeyReused(f"{movement.key} names another movement; use a new key.")
    return found


def _save(movement: Movement) -> None:
    """A key that another bucket's movement takes at the same instant is refused."""
    try:
        with transaction.atomic():
            movement.save(force_insert=True)
    except IntegrityError as error:
        raise MovementKeyReused(f"{movement.key} names another movement; use a new key.") from error


def _open_bucket(bucket_id: int) -> Bucket:
    bucket = Bucket.objects.get(pk=bucket_id)
    if bucket.closed_at is not None:
        raise BucketRefused(f"Bucket {bucket_id} is closed; grant a new one.")
    if Movement.objects.filter(bucket_id=bucket_id, kind=Movement.Kind.VOID).exists():
        raise BucketRefused(f"Bucket {bucket_id} is void; grant a new one.")
    return bucket


def _free_mt(bucket: Bucket) -> int:
    return bucket.remaining_mt - bucket.reserved_mt


def _terms(bucket: Bucket) -> dict[str, Any]:
    """What a token keeps when it goes to somebody else."""
    return {
        "kind": bucket.kind,
        "priority": bucket.priority,
        "minute_from": bucket.minute_from,
        "minute_until": bucket.minute_until,
        "rollover_percent": bucket.rollover_percent,
        "rollover_cap_mt": bucket.rollover_cap_mt,
        "valid_until": bucket.valid_until,
    }


def _fitting(bucket: Bucket, subscriber_id: int, at: datetime) -> Bucket | None:
    """Where the tokens pay as before: what has not begun yet must not begin earlier there."""
    begun = bucket.valid_from <= at
    begins: dict[str, Any] = {"valid_from__lte": at} if begun else {"valid_from": bucket.valid_from}
    voided = Movement.objects.filter(kind=Movement.Kind.VOID).values("bucket_id")
    return (
        Bucket.objects.filter(
            subscriber_id=subscriber_id,
            closed_at=None,
            model_ids=bucket.model_ids,
            **begins,
            **_terms(bucket),
        )
        .exclude(pk__in=voided)
        .order_by("id")
        .first()
    )


def _following(bucket: Bucket, subscriber_id: int, movement: Movement) -> Bucket:
    """A new, empty bucket of the receiver under the terms of the old one."""
    terms = _terms(bucket)
    wanted = Grant(
        subscriber_id=subscriber_id,
        name=bucket.name,
        name_en=bucket.name_en,
        amount_mt=movement.amount_mt,
        model_ids=tuple(bucket.model_ids),
        # Not for usage of before: what the receiver had used then is settled.
        valid_from=max(bucket.valid_from, movement.at),
        key=f"transfer:{movement.key}",
        **terms,
    )
    return wanted.make_bucket(movement.at)


def _enter(cursor: Cursor, movement: Movement, bucket: Bucket, kind: str, mt: int) -> None:
    add_entry(
        cursor,
        bucket=bucket,
        kind=kind,
        amount_mt=mt,
        actor=movement.actor,
        reason=movement.reason,
        now=movement.at,
    )
