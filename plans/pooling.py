"""Which pool a plan or a pack fills: settled when it is bought, and kept with the purchase.

A plan opens the account's pool when there is none and lets its buyer in; a pack only adds to one.
Buyers of one account take turns, so that two at once open one pool.
"""

from collections.abc import Sequence
from datetime import datetime

from accounts.models import Account, Subscriber
from usage import pools
from usage.models import Pool, PoolMember
from usage.periods import day_of, day_start

from .models import PlanVersion
from .refusals import NoPool, PoolRefused
from .turns import take_turn


def pool_to_fill(
    *, subscriber: Subscriber, version: PlanVersion, starts_at: datetime, actor: str, now: datetime
) -> Pool | None:
    """The pool that a subscription of this locked subscriber fills; None for its own buckets.

    The buyer is a member from the first day that is paid for, as far as that is past. Raises
    PoolRefused when it draws on another account's pool, or the account has several.
    """
    if not version.pool_kind:
        return None
    take_turn(f"plans.pool:{subscriber.account_id}")
    member = _membership(subscriber, now)
    if member is not None and member.pool.account_id != subscriber.account_id:
        raise PoolRefused(
            f"The subscriber draws on pool {member.pool.name} of another account; leave it first, "
            "since nobody draws on two"
        )
    pool = _pool_of(subscriber, member) or _open(subscriber, version, now)
    if member is None:
        pools.join_since(
            pool_id=pool.pk,
            subscriber_id=subscriber.pk,
            actor=actor,
            now=now,
            since=day_start(day_of(starts_at)),
        )
    return pool


def pool_to_add_to(*, subscriber: Subscriber, version: PlanVersion, now: datetime) -> Pool | None:
    """The pool that a pack for this locked subscriber goes into; None for its own buckets.

    Raises NoPool, and PoolRefused when the account has several.
    """
    if not version.pool_kind:
        return None
    pool = _pool_of(subscriber, _membership(subscriber, now))
    if pool is None:
        raise NoPool("The account has no pool yet; subscribe to a plan that opens one")
    return pool


def packs_for(
    subscriber: Subscriber, packs: Sequence[PlanVersion], *, now: datetime
) -> list[PlanVersion]:
    """Of these packs those that can be sold to the subscriber: without a pool, none that add to
    one."""
    if not any(pack.pool_kind for pack in packs):
        return list(packs)
    try:
        pool = _pool_of(subscriber, _membership(subscriber, now))
    except PoolRefused:
        pool = None
    return [pack for pack in packs if pool is not None or not pack.pool_kind]


def _membership(subscriber: Subscriber, now: datetime) -> PoolMember | None:
    members = PoolMember.objects.select_related("pool").filter(subscriber=subscriber)
    return members.exclude(left_at__lte=now).order_by("-joined_at").first()


def _pool_of(subscriber: Subscriber, member: PoolMember | None) -> Pool | None:
    """The account's pool: the one the subscriber is in, else the only one there is."""
    if member is not None and member.pool.account_id == subscriber.account_id:
        return member.pool
    found = list(Pool.objects.filter(account_id=subscriber.account_id).order_by("id")[:2])
    if len(found) == 2:
        raise PoolRefused("The account has several pools; let the subscriber join the one meant")
    return found[0] if found else None


def _open(subscriber: Subscriber, version: PlanVersion, now: datetime) -> Pool:
    name = Account.objects.values_list("name", flat=True).get(id=subscriber.account_id)
    return pools.create_pool(
        account_id=subscriber.account_id,
        name=name[:100] or subscriber.msisdn,
        kind=version.pool_kind,
        now=now,
    )
