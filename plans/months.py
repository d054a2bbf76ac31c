"""The months of subscriptions: terms, tokens and fee of each cycle, exactly once.

A month is granted and charged in the transaction that moves `renews_at` past it: a process killed
in between leaves neither, and a second one finds the month done. Many subscriptions are taken
together, since on the first of a month they are all due in the same minute.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime

from accounts.lifecycle import UnknownSubscriber
from accounts.models import Subscriber
from usage import granting, pools, profiles
from usage.database import fast_cursor
from usage.ledger import Grant
from usage.models import NEVER, Bucket, ChargingProfile
from usage.periods import cycle_end, cycle_of, day_of, day_start

from . import catalogue, charging
from .models import Charge, Subscription
from .proration import Stub, first_month


def locked_subscriber(subscriber_id: int) -> Subscriber:
    """The subscriber's row, locked until the transaction ends; rows may still point at it."""
    rows = Subscriber.objects.select_for_update(of=("self",), no_key=True)
    subscriber = rows.filter(id=subscriber_id).first()
    if subscriber is None:
        raise UnknownSubscriber(f"There is no subscriber {subscriber_id}.")
    return subscriber


def make_good(
    *, subscriptions: Sequence[Subscription], now: datetime, until: datetime | None = None
) -> None:
    """Grant and charge cycle after cycle up to the ones that hold `until` (`now` unless told), or
    up to the ends. A first month, whose terms replace others, and an end wait for `now`.

    The caller holds the transaction and the locks of the subscribers and subscriptions, which come
    with their `version` and `subscriber`.
    """
    until = until or now
    due = [one for one in subscriptions if _may_go_on(one, now, until)]
    # Terms are set one by one below, so the locks are taken in their order before.
    with fast_cursor() as cursor:
        pools.lock_with_pools(
            cursor,
            subscriber_ids={one.subscriber_id for one in due},
            pool_ids={one.pool_id for one in due if one.pool_id is not None},
            now=now,
        )
    while due:
        for subscription in due:
            if _is_over(subscription) and subscription.renews_at <= now:
                _finish(subscription, now)
        due = [one for one in due if _may_go_on(one, now, until)]
        _begin_cycles(due, now)
        due = [one for one in due if _may_go_on(one, now, until)]


def _may_go_on(subscription: Subscription, now: datetime, until: datetime) -> bool:
    early = subscription.renews_at > subscription.starts_at and not _is_over(subscription)
    return subscription.renews_at <= (until if early else now)


def _is_over(subscription: Subscription) -> bool:
    return subscription.ends_at is not None and subscription.renews_at >= subscription.ends_at


def _begin_cycles(due: Sequence[Subscription], now: datetime) -> None:
    """The cycle of each that begins (or is joined) at its `renews_at`."""
    grants: list[Grant] = []
    charges: list[Charge] = []
    moved: dict[datetime, list[int]] = defaultdict(list)
    for subscription in due:
        start = subscription.renews_at
        if start == subscription.starts_at:
            _set_terms(subscription, now)
        share = first_month(
            price_fen=subscription.price_fen, tokens=subscription.tokens, start=day_of(start)
        )
        if share.tokens:
            grants.append(_grant(subscription, share))
        if share.fee_fen:
            charges.append(_charge(subscription, share, now))
        subscription.renews_at = cycle_end(cycle_of(start))
        moved[subscription.renews_at].append(subscription.pk)
    granting.grant_many(grants=grants, now=now)
    charging.book_new(charges=charges)
    for renews_at, ids in moved.items():
        Subscription.objects.filter(id__in=ids).update(renews_at=renews_at)


def _key(subscription: Subscription, cycle: date) -> str:
    return f"subscription:{subscription.pk}:{cycle:%Y-%m}"


def _grant(subscription: Subscription, share: Stub) -> Grant:
    version, cycle = subscription.version, cycle_of(subscription.renews_at)
    pool_id = subscription.pool_id
    assert (pool_id is not None) is bool(version.pool_kind), "its pool is settled at purchase"
    return Grant(
        subscriber_id=subscription.subscriber_id if pool_id is None else None,
        pool_id=pool_id,
        kind=Bucket.Kind.PLAN,
        name=version.name,
        name_en=version.name_en,
        amount_mt=share.tokens * 1000,
        # The day of the start is paid for as a whole, so its tokens are good for all of it.
        valid_from=day_start(day_of(subscription.renews_at)),
        valid_until=cycle_end(cycle),
        key=_key(subscription, cycle),
        priority=version.priority,
        model_ids=tuple(catalogue.model_ids_of(version)),
        minute_from=version.minute_from,
        minute_until=version.minute_until,
        rollover_percent=version.rollover_percent,
        rollover_cap_mt=version.rollover_cap_tokens * 1000,
    )


def _charge(subscription: Subscription, share: Stub, now: datetime) -> Charge:
    version, cycle = subscription.version, cycle_of(subscription.renews_at)
    return Charge(
        account_id=subscription.subscriber.account_id,
        subscriber_id=subscription.subscriber_id,
        kind=Charge.Kind.FEE,
        version=version,
        name=version.name,
        name_en=version.name_en,
        amount_fen=share.fee_fen,
        tax_category=version.tax_category,
        cycle=cycle,
        period_start=subscription.renews_at,
        period_end=cycle_end(cycle),
        created_at=now,
        key=f"fee:{_key(subscription, cycle)}",
    )


def _set_terms(subscription: Subscription, now: datetime) -> None:
    # Before the grant, which reopens a subscriber under the terms that hold from now on.
    version = subscription.version
    profiles.set_terms(
        subscriber_id=subscription.subscriber_id,
        beyond=version.beyond,
        payg_fen_per_million=version.payg_fen_per_million,
        payg_cap_mt=version.payg_cap_tokens * 1000,
        final_action=version.final_action,
        free_model=version.free_model,
        pool_first=version.pool_first,
        now=now,
    )


def _finish(subscription: Subscription, now: datetime) -> None:
    """The end is reached: nothing is due any more, and nothing is sold beyond the buckets."""
    assert subscription.ends_at is not None, "only a subscription with an end is finished"
    subscription.renews_at = NEVER
    subscription.save(update_fields=["renews_at"])
    others = Subscription.objects.filter(subscriber_id=subscription.subscriber_id)
    if others.filter(starts_at__gte=subscription.ends_at, starts_at__lte=now).exists():
        return  # its own first cycle sets the terms
    profiles.set_terms(
        subscriber_id=subscription.subscriber_id,
        beyond=ChargingProfile.Beyond.STOP,
        payg_fen_per_million=0,
        payg_cap_mt=0,
        now=now,
    )
