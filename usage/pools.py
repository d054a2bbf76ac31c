"""Pools: who may draw on shared buckets, how much of them, and what is granted into them.

A membership changes only while the subscriber's charging profile is held, a pool's buckets only
while the pool's row is held. A grant looks after its members once it is committed, in steps of a
hundred: holding the pool while locking profiles would turn the order of locks around.
"""

from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from typing import Any, TypedDict

from django.db import transaction
from django.db.models import Sum

from accounts.lifecycle import UnknownAccount
from accounts.models import Account, Subscriber
from config.errors import DomainError

from . import callbacks
from .database import Cursor, fast_cursor
from .enforcement import reconsider
from .ledger import Grant, GrantReused, open_bucket
from .locking import lock_owners, lock_pools, lock_profiles
from .models import UNCAPPED, Bucket, ChargingProfile, Pool, PoolMember, PoolUsage
from .periods import next_cycle
from .profiles import refuse_unknown
from .standing import Profile

MOST_MEMBERS_LOOKED_AT = 10_000  # after a grant; the sweep finds the others
STEP = 100  # members locked together
INSTANT = timedelta(microseconds=1)

# Present members who are blocked for want of tokens, or whose sessions may ask for more now.
WAITING_MEMBERS = """
    SELECT member.subscriber_id
      FROM usage_poolmember AS member
      JOIN usage_chargingprofile AS profile ON profile.subscriber_id = member.subscriber_id
     WHERE member.pool_id = %(pool_id)s AND member.joined_at <= %(now)s
       AND (member.left_at IS NULL OR member.left_at > %(now)s)
       AND (profile.blocked = 'quota_exhausted'
            OR EXISTS (SELECT 1 FROM usage_quotasession AS session
                        WHERE session.subscriber_id = member.subscriber_id
                          AND session.state IN ('open', 'idle')))
     ORDER BY member.subscriber_id
     LIMIT %(limit)s
"""


class Caps(TypedDict):
    """What a member may take at most, in mt; UNCAPPED caps nothing."""

    cycle_cap_mt: int
    day_cap_mt: int


class UnknownPool(DomainError):
    """There is no such pool, or the subscriber is not in it."""

    code = "unknown_pool"
    status = 404
    title = "Unknown pool"


class MembershipRefused(DomainError):
    """The subscriber is in a pool already, was after the instant told, or is gone."""

    code = "membership_refused"
    status = 409
    title = "The membership is not possible"


def create_pool(*, account_id: int, name: str, kind: str, now: datetime) -> Pool:
    """A pool that this account pays for; `kind` is `family` or `enterprise`."""
    if not Account.objects.filter(id=account_id).exists():
        raise UnknownAccount(f"There is no account {account_id}; open it first.")
    return Pool.objects.create(
        account_id=account_id, name=name, kind=Pool.Kind(kind), created_at=now
    )


@transaction.atomic
def join(
    *,
    pool_id: int,
    subscriber_id: int,
    actor: str,
    now: datetime,
    cycle_cap_mt: int = UNCAPPED,
    day_cap_mt: int = UNCAPPED,
) -> tuple[PoolMember, bool]:
    """Let a subscriber draw on a pool from now on, up to its caps in mt; of any account, since the
    pool's pays. A repeat changes nothing and answers False; MembershipRefused while in another
    pool, or in this one with other caps, and to who is terminated."""
    known(pool_id)
    if _lock(subscriber_id).state == Subscriber.State.TERMINATED:
        raise MembershipRefused(f"Subscriber {subscriber_id} is terminated.")
    last = _last(subscriber_id)
    if last is not None and (last.left_at is None or last.left_at > now):
        asked = pool_id, cycle_cap_mt, day_cap_mt, None
        if (last.pool_id, last.cycle_cap_mt, last.day_cap_mt, last.left_at) == asked:
            return last, False
        raise MembershipRefused(
            f"Subscriber {subscriber_id} is in pool {last.pool_id}; leave it, or change the caps."
        )
    member = PoolMember(
        pool_id=pool_id,
        subscriber_id=subscriber_id,
        cycle_cap_mt=cycle_cap_mt,
        day_cap_mt=day_cap_mt,
        joined_at=now,
        joined_by=actor,
    )
    return _let_in(member, now), True


@transaction.atomic
def join_since(
    *, pool_id: int, subscriber_id: int, since: datetime, actor: str, now: datetime
) -> PoolMember:
    """Let a subscriber without a pool draw on one, uncapped, for usage of the past too that comes
    from now on: since that instant, or since it left a former pool. MembershipRefused while in one.
    """
    known(pool_id)
    _lock(subscriber_id)
    last = _last(subscriber_id)
    free_from = since
    if last is not None:
        if last.left_at is None or last.left_at > now:
            raise MembershipRefused(f"Subscriber {subscriber_id} is in pool {last.pool_id}.")
        free_from = max(since, last.left_at)
    member = PoolMember(
        pool_id=pool_id,
        subscriber_id=subscriber_id,
        joined_at=min(now, free_from),
        joined_by=actor,
    )
    return _let_in(member, now)


@transaction.atomic
def leave(*, pool_id: int, subscriber_id: int, actor: str, now: datetime) -> PoolMember:
    """End a membership now; what was taken stays, and usage of before still counts on the pool.

    The profile stays `pooled` for that. UnknownPool when the subscriber is not a member.
    """
    member = _locked_member(pool_id, subscriber_id)
    # One that leaves in the instant of joining was a member for the shortest time there is.
    _end(member, actor, max(now, member.joined_at + INSTANT))
    reconsider(subscriber_ids=[subscriber_id], now=now)
    return member


def leave_with_life(subscriber: Subscriber, now: datetime) -> None:
    """Who is terminated leaves its pool: what a node serves all the same must not be paid by the
    others. Within the transaction of the change."""
    if subscriber.state != Subscriber.State.TERMINATED:
        return
    _lock(subscriber.pk)
    for member in PoolMember.objects.filter(subscriber=subscriber, left_at__isnull=True):
        _end(member, "termination", max(now, member.joined_at + INSTANT))


@transaction.atomic
def set_caps(
    *,
    pool_id: int,
    subscriber_id: int,
    actor: str,
    now: datetime,
    cycle_cap_mt: int | None = None,
    day_cap_mt: int | None = None,
) -> PoolMember:
    """Other caps (mt) from now on; what was taken this month and today counts against them. One
    that is not told stays as it is; UNCAPPED lifts it."""
    member = _locked_member(pool_id, subscriber_id)
    cycle_cap_mt = member.cycle_cap_mt if cycle_cap_mt is None else cycle_cap_mt
    day_cap_mt = member.day_cap_mt if day_cap_mt is None else day_cap_mt
    if (member.cycle_cap_mt, member.day_cap_mt) == (cycle_cap_mt, day_cap_mt):
        return member
    since = max(now, member.joined_at + INSTANT)
    _end(member, actor, since)
    following = PoolMember.objects.create(
        pool_id=pool_id,
        subscriber_id=subscriber_id,
        cycle_cap_mt=cycle_cap_mt,
        day_cap_mt=day_cap_mt,
        joined_at=since,
        joined_by=actor,
    )
    reconsider(subscriber_ids=[subscriber_id], now=since)
    return following


def lock_with_pools(
    cursor: Cursor,
    *,
    subscriber_ids: Collection[int],
    pool_ids: Collection[int] = (),
    now: datetime,
) -> None:
    """Lock subscribers, the pools that charging them locks, and these pools: all in their order,
    for a caller whose steps would ask for one after the other."""
    _profiles, memberships = lock_owners(cursor, sorted(subscriber_ids), now=now)
    wanted = {stay.pool_id for stays in memberships.values() for stay in stays}.union(pool_ids)
    if wanted:
        lock_pools(cursor, sorted(wanted))


def grant_to_pool(
    *, wanted: Grant, now: datetime, actor: str = "", reason: str = ""
) -> tuple[Bucket, bool]:
    """Open a bucket of a pool once per key, then unblock its members; a repeat answers False.

    GrantReused when the key opened something else, with another name or end too. Not within another
    transaction: the members are looked at when the grant is committed.
    """
    assert wanted.pool_id is not None and wanted.subscriber_id is None, "a grant to a pool"
    known(wanted.pool_id)
    with transaction.atomic(durable=True), fast_cursor() as cursor:
        lock_pools(cursor, [wanted.pool_id])
        bucket, opened = open_bucket(cursor, wanted, actor=actor, reason=reason, now=now)
        if opened and wanted.valid_from <= now:
            callbacks.reauthorize_pool(
                cursor, pool_id=wanted.pool_id, cause=f"bucket:{bucket.pk}", now=now
            )
    if not opened and not _is_same(bucket, wanted):
        raise GrantReused(f"{wanted.key} was granted before with other content.")
    if opened and wanted.valid_from <= now:
        open_members(pool_id=wanted.pool_id, refill=f"bucket:{bucket.pk}", now=now)
    bucket.refresh_from_db()
    return bucket, opened


def open_members(*, pool_id: int, refill: str, now: datetime) -> int:
    """Look again at the waiting members of a pool that has got tokens; returns how many.

    `refill` names what it got: open sessions are told to ask again.
    """
    with fast_cursor() as cursor:
        row: dict[str, Any] = {"pool_id": pool_id, "now": now, "limit": MOST_MEMBERS_LOOKED_AT}
        ids = [owner for (owner,) in cursor.execute(WAITING_MEMBERS, row)]
    for start in range(0, len(ids), STEP):
        reconsider(subscriber_ids=ids[start : start + STEP], now=now, refill=refill)
    return len(ids)


def _is_same(bucket: Bucket, wanted: Grant) -> bool:
    """Whether a repeat asks for what was granted; its beginning is that of the first time."""
    asked = wanted.kind, wanted.name, wanted.name_en, wanted.valid_until
    return asked == (bucket.kind, bucket.name, bucket.name_en, bucket.valid_until)


def known(pool_id: int) -> Pool:
    """The pool; UnknownPool when there is none."""
    pool = Pool.objects.filter(id=pool_id).first()
    if pool is None:
        raise UnknownPool(f"There is no pool {pool_id}.")
    return pool


def used_by(*, pool_id: int, subscriber_ids: Sequence[int], cycle: date) -> dict[int, int]:
    """What these subscribers took from a pool in a cycle, in mt."""
    rows = PoolUsage.objects.filter(
        pool_id=pool_id,
        subscriber_id__in=subscriber_ids,
        day__gte=cycle,
        day__lt=next_cycle(cycle),
    )
    return dict(rows.values_list("subscriber_id").annotate(Sum("mt")))


def _lock(subscriber_id: int) -> Profile:
    refuse_unknown(subscriber_id)
    with fast_cursor() as cursor:
        return lock_profiles(cursor, [subscriber_id])[subscriber_id]


def _locked_member(pool_id: int, subscriber_id: int) -> PoolMember:
    _lock(subscriber_id)
    members = PoolMember.objects.filter(
        pool_id=pool_id, subscriber_id=subscriber_id, left_at__isnull=True
    )
    member = members.first()
    if member is None:
        raise UnknownPool(f"Subscriber {subscriber_id} is not a member of pool {pool_id}.")
    return member


def _last(subscriber_id: int) -> PoolMember | None:
    """The newest membership of a locked subscriber."""
    members = PoolMember.objects.filter(subscriber_id=subscriber_id)
    return members.order_by("-joined_at").first()


def _let_in(member: PoolMember, now: datetime) -> PoolMember:
    member.save(force_insert=True)
    ChargingProfile.objects.filter(subscriber_id=member.subscriber_id).update(pooled=True)
    reconsider(subscriber_ids=[member.subscriber_id], now=now)
    return member


def _end(member: PoolMember, actor: str, at: datetime) -> None:
    member.left_at, member.left_by = at, actor
    member.save(update_fields=["left_at", "left_by"])
