"""Subscriptions: a plan that is held from a day on, renewed each month, and ended.

Every verb locks the subscriber's row first, so what is sold to one subscriber stands in line.
"""

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet

from accounts import lifecycle
from accounts.models import Account, Subscriber
from accounts.numbers import normalise_msisdn
from usage.models import NEVER
from usage.periods import cycle_end, cycle_of, day_of

from . import catalogue, pooling
from .models import Plan, Subscription
from .months import locked_subscriber, make_good
from .refusals import (
    AlreadySubscribed,
    EndRefused,
    StartRefused,
    SubscriberNotActive,
    WrongKindOfPlan,
)
from .turns import take_turn

logger = logging.getLogger(__name__)

# A start may be given in arrears (a move from another system) or ahead, within these limits.
OLDEST_START = timedelta(days=400)
LATEST_START = timedelta(days=400)
SHARD = 200  # subscribers a transaction of the renewal: short, since charging waits for it
State = Subscriber.State


@transaction.atomic
def subscribe(
    *, subscriber_id: int, plan_code: str, starts_at: datetime, actor: str, now: datetime
) -> Subscription:
    """Give an active subscriber a plan from `starts_at` on.

    The first month's fee and tokens are its calendar days' share; a start in the past is made good
    for every cycle up to `now`, a start in the future waits for the renewal. Raises UnknownPlan,
    WrongKindOfPlan, SubscriberNotActive, StartRefused, PoolRefused for a plan that fills a pool,
    and AlreadySubscribed while another plan is held at or after `starts_at`.
    """
    subscriber = locked_subscriber(subscriber_id)
    if subscriber.state != State.ACTIVE:
        raise SubscriberNotActive(
            f"Subscriber {subscriber_id} is {subscriber.state}; only active ones can subscribe"
        )
    version = catalogue.version_on_sale(plan_code)
    if version.plan.kind == Plan.Kind.PACK:
        raise WrongKindOfPlan(f"{plan_code} is a pack: place an order for it")
    if not now - OLDEST_START <= starts_at <= now + LATEST_START:
        raise StartRefused(f"The start must lie within {OLDEST_START.days} days of today")
    overlapping = subscriber.subscriptions.exclude(ends_at__lte=starts_at)
    if held := overlapping.select_related("version__plan").first():
        raise AlreadySubscribed(
            f"The subscriber holds {held.version.plan.code} from {day_of(held.starts_at)} on; "
            "end it first, and start the new plan where it ends"
        )
    pool = pooling.pool_to_fill(
        subscriber=subscriber, version=version, starts_at=starts_at, actor=actor, now=now
    )
    subscription = Subscription.objects.create(
        subscriber=subscriber,
        pool=pool,
        version=version,
        price_fen=version.price_fen,
        tokens=version.tokens,
        starts_at=starts_at,
        renews_at=starts_at,
        created_at=now,
    )
    make_good(subscriptions=[subscription], now=now)
    logger.info("subscription %s to %s by %s", subscription.pk, version, actor)
    return subscription


@transaction.atomic
def sign_up(
    *,
    msisdn: str,
    plan_code: str,
    starts_at: datetime,
    actor: str,
    now: datetime,
    account_id: int | None = None,
    name: str = "",
) -> Subscriber:
    """A subscriber with this number and plan: the living one that has both, else a new one.

    Without `account_id` a person's account of that name (or number) is opened. A repeat changes
    nothing, whatever its start. Raises AlreadySubscribed when the number's holder has another plan
    or another account, and what creating and subscribing raise.
    """
    number = normalise_msisdn(msisdn)
    # In line by number, so that the same sign-up sent twice at once finds the first one's rows.
    take_turn(f"plans.sign_up:{number}")
    living = Subscriber.objects.exclude(state=Subscriber.State.TERMINATED)
    found = living.filter(msisdn=number).first()
    if found is None:
        subscriber = _create(number, starts_at, actor, now, account_id, name)
    else:
        subscriber = locked_subscriber(found.pk)
        if account_id not in (None, subscriber.account_id):
            raise AlreadySubscribed(f"{number} belongs to account {subscriber.account_id}")
        if _holds(subscriber, plan_code, now):
            return subscriber
        if subscriber.state == Subscriber.State.CREATED:
            lifecycle.activate(
                subscriber_id=subscriber.pk, actor=actor, reason="signed up", now=now
            )
    subscribe(
        subscriber_id=subscriber.pk,
        plan_code=plan_code,
        starts_at=starts_at,
        actor=actor,
        now=now,
    )
    subscriber.refresh_from_db()
    return subscriber


@transaction.atomic
def end_subscription(
    *, subscription_id: int, actor: str, now: datetime, ends_at: datetime | None = None
) -> Subscription | None:
    """End a subscription where its granted months end, or at the later end of a cycle.

    What was granted and charged stays. A subscription that has not begun is removed, and the answer
    is None. Raises EndRefused for another instant, or when it has ended before.
    """
    found = Subscription.objects.filter(id=subscription_id).first()
    if found is None:
        raise EndRefused(f"There is no subscription {subscription_id}")
    locked_subscriber(found.subscriber_id)
    subscription = _locked(subscription_id)
    if subscription is None or subscription.renews_at == NEVER:
        raise EndRefused(f"Subscription {subscription_id} has ended already")
    make_good(subscriptions=[subscription], now=now)
    if subscription.renews_at == subscription.starts_at:
        subscription.delete()
        return None
    end = ends_at or subscription.renews_at
    if end < subscription.renews_at or end != cycle_end(cycle_of(end - timedelta(microseconds=1))):
        raise EndRefused(
            f"Subscription {subscription_id} is granted up to "
            f"{subscription.renews_at.isoformat()}; end it there or where a later cycle ends"
        )
    subscription.ends_at = end
    subscription.save(update_fields=["ends_at"])
    logger.info("subscription %s ends at %s by %s", subscription.pk, end, actor)
    return subscription


def renew_due(*, now: datetime, limit: int = 1000) -> int:
    """Grant and charge every month that has begun or will within RENEWAL_LEAD_SECONDS, for at most
    `limit` subscribers; how many. The lead lets the month's tokens be there when the month begins,
    so that nobody is cut off at midnight while millions are renewed.

    A suspended subscriber keeps the plan and goes on paying for it, as the contract does; ending
    the subscription stops that. Several processes may run this at once: each takes subscribers
    that no other holds, a bounded shard in a transaction, and passes over those that fail.
    """
    renewed, after = 0, 0
    while renewed < limit:
        size = min(SHARD, limit - renewed)
        shard = list(_due(now + _lead()).filter(id__gt=after)[:size])
        if not shard:
            break
        renewed += _renew_shard(shard, now)
        after = shard[-1]
    return renewed


def _lead() -> timedelta:
    return timedelta(seconds=settings.RENEWAL_LEAD_SECONDS)


def _due(until: datetime) -> QuerySet[Subscriber, int]:
    """The ids of subscribers with a further month to begin by then, in order; a first month and
    an end take their time."""
    further = Q(renews_at__gt=F("starts_at")) & ~Q(ends_at__lte=F("renews_at"))
    due = Subscription.objects.filter(
        Q(renews_at__lte=until) & further | Q(renews_at__lte=until - _lead())
    )
    ids = Subscriber.objects.filter(id__in=due.values("subscriber_id")).order_by("id")
    return ids.values_list("id", flat=True)


def _renew_shard(subscriber_ids: list[int], now: datetime) -> int:
    try:
        with transaction.atomic():
            rows = Subscriber.objects.select_for_update(of=("self",), no_key=True, skip_locked=True)
            free = rows.filter(id__in=subscriber_ids).order_by("id")
            return _renew(list(free.values_list("id", flat=True)), now)
    except Exception:
        # One subscription must not hold up its shard: each has its own transaction this time.
        logger.exception("a shard of renewals failed; its subscribers are renewed one by one")
    return sum(_renew_alone(subscriber_id, now) for subscriber_id in subscriber_ids)


def _renew_alone(subscriber_id: int, now: datetime) -> int:
    try:
        with transaction.atomic():
            return _renew([locked_subscriber(subscriber_id).pk], now)
    except Exception:
        # It stays due, so the next run tries it again.
        logger.exception("subscriber %s was not renewed", subscriber_id)
        return 0


def _renew(subscriber_ids: list[int], now: datetime) -> int:
    # Read under the lock: what another process renewed meanwhile is not due any more.
    rows = Subscription.objects.select_for_update(of=("self",))
    due = rows.filter(subscriber_id__in=subscriber_ids, renews_at__lte=now + _lead())
    subscriptions = list(
        due.select_related("version__plan", "subscriber").order_by("subscriber_id", "starts_at")
    )
    make_good(subscriptions=subscriptions, now=now, until=now + _lead())
    return len({subscription.subscriber_id for subscription in subscriptions})


def end_with_subscriber(subscriber: Subscriber, now: datetime) -> None:
    """Follows a subscriber's life: a plan ends with its holder; the month's fee stays owed."""
    if subscriber.state != State.TERMINATED:
        return
    held = subscriber.subscriptions.select_for_update(of=("self",)).exclude(ends_at__lte=now)
    for subscription in held.select_related("version__plan", "subscriber").order_by("id"):
        # A month that has begun is owed, even when the renewal has not come round yet.
        make_good(subscriptions=[subscription], now=now)
        if subscription.renews_at == subscription.starts_at:
            # Never begun: nothing was granted or charged, so nothing refers to it.
            subscription.delete()
            continue
        # A period is never empty, not even of a plan that was bought at this very instant.
        subscription.ends_at = max(now, subscription.starts_at + timedelta(microseconds=1))
        subscription.renews_at = NEVER
        subscription.save(update_fields=["ends_at", "renews_at"])


def _locked(subscription_id: int) -> Subscription | None:
    rows = Subscription.objects.select_for_update(of=("self",))
    return rows.select_related("version__plan", "subscriber").filter(id=subscription_id).first()


def _create(
    number: str,
    starts_at: datetime,
    actor: str,
    now: datetime,
    account_id: int | None,
    name: str,
) -> Subscriber:
    if account_id is None:
        account = lifecycle.open_account(kind=Account.Kind.PERSON, name=name or number, now=now)
        account_id = account.pk
    subscriber = lifecycle.create_subscriber(
        account_id=account_id,
        msisdn=number,
        actor=actor,
        reason="signed up",
        now=now,
        # Usage of the months that are made good must find its subscriber.
        number_from=min(starts_at, now),
    )
    return lifecycle.activate(subscriber_id=subscriber.pk, actor=actor, reason="signed up", now=now)


def _holds(subscriber: Subscriber, plan_code: str, now: datetime) -> bool:
    held = Subscription.objects.filter(subscriber=subscriber).exclude(ends_at__lte=now)
    return held.filter(version__plan__code=plan_code).exists()
