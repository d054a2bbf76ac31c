"""The months of a subscription: terms, tokens and fee of each cycle, exactly once.

A month is granted and charged in the transaction that moves `renews_at` past it: a process killed
in between leaves neither, and a second one finds the month done.
"""

from datetime import datetime

from accounts.lifecycle import UnknownSubscriber
from accounts.models import Subscriber
from usage import ledger, profiles
from usage.models import NEVER, Bucket, ChargingProfile
from usage.periods import cycle_end, cycle_of, day_of

from . import catalogue, charging
from .models import Charge, Subscription
from .proration import first_month


def locked_subscriber(subscriber_id: int) -> Subscriber:
    """The subscriber's row, locked until the transaction ends; rows may still point at it."""
    rows = Subscriber.objects.select_for_update(of=("self",), no_key=True)
    subscriber = rows.filter(id=subscriber_id).first()
    if subscriber is None:
        raise UnknownSubscriber(f"There is no subscriber {subscriber_id}.")
    return subscriber


def make_good(*, subscription: Subscription, now: datetime) -> None:
    """Grant and charge cycle after cycle until the one that holds `now`, or until the end.

    The caller holds the locks of the subscriber and the subscription, and the transaction.
    """
    while subscription.renews_at <= now:
        if subscription.ends_at is not None and subscription.renews_at >= subscription.ends_at:
            _finish(subscription, now)
            return
        _grant_cycle(subscription, now)
        subscription.renews_at = cycle_end(cycle_of(subscription.renews_at))
        subscription.save(update_fields=["renews_at"])


def _grant_cycle(subscription: Subscription, now: datetime) -> None:
    """The cycle that begins (or is joined) at `renews_at`: terms, tokens, fee."""
    start = subscription.renews_at
    version = subscription.version
    cycle = cycle_of(start)
    end = cycle_end(cycle)
    share = first_month(
        price_fen=subscription.price_fen, tokens=subscription.tokens, start=day_of(start)
    )
    key = f"subscription:{subscription.pk}:{cycle:%Y-%m}"
    if start == subscription.starts_at:
        # Terms first: the grant below reopens a subscriber under the terms that hold from now on.
        profiles.set_terms(
            subscriber_id=subscription.subscriber_id,
            beyond=version.beyond,
            payg_fen_per_million=version.payg_fen_per_million,
            payg_cap_mt=version.payg_cap_tokens * 1000,
            now=now,
        )
    if share.tokens:
        ledger.grant(
            subscriber_id=subscription.subscriber_id,
            kind=Bucket.Kind.PLAN,
            name=version.name,
            name_en=version.name_en,
            amount_mt=share.tokens * 1000,
            valid_from=start,
            valid_until=end,
            key=key,
            now=now,
            priority=version.priority,
            model_ids=catalogue.model_ids_of(version),
        )
    if share.fee_fen:
        charging.book(
            account_id=subscription.subscriber.account_id,
            subscriber_id=subscription.subscriber_id,
            kind=Charge.Kind.FEE,
            name=version.name,
            name_en=version.name_en,
            amount_fen=share.fee_fen,
            tax_category=version.tax_category,
            cycle=cycle,
            period_start=start,
            period_end=end,
            key=f"fee:{key}",
            now=now,
            version_id=version.pk,
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
