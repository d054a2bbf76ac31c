"""Subscribing: the first month's share, arrears, the first of next month, and the refusals."""

import pytest
from django.db import connection

from accounts import lifecycle
from accounts.lifecycle import UnknownSubscriber
from accounts.models import Subscriber
from plans import catalogue, subscribing
from plans.models import Charge, Subscription
from plans.refusals import (
    AlreadySubscribed,
    EndRefused,
    StartRefused,
    SubscriberNotActive,
    UnknownPlan,
    WrongKindOfPlan,
)
from usage.models import NEVER, Bucket, ChargingProfile
from usage.proof import verify

from .conftest import NOON, at

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("shipped")]


def subscribe(
    subscriber: Subscriber, *, plan: str = "token-29.9", starts: str = "2026-11-24 12:00"
) -> Subscription:
    return subscribing.subscribe(
        subscriber_id=subscriber.pk, plan_code=plan, starts_at=at(starts), actor="clerk", now=NOON
    )


def months(subscriber: Subscriber) -> list[tuple[str, int, int]]:
    """Cycle, tokens and fee of every month that was granted."""
    buckets = {b.key: b for b in Bucket.objects.filter(subscriber=subscriber)}
    return [
        (
            f"{charge.cycle:%Y-%m}",
            buckets[charge.key.removeprefix("fee:")].granted_mt // 1000,
            charge.amount_fen,
        )
        for charge in Charge.objects.filter(subscriber=subscriber).order_by("cycle")
    ]


def test_bill_01_a_start_now_pays_and_gets_the_share_of_its_days(subscriber: Subscriber) -> None:
    subscription = subscribe(subscriber)
    assert months(subscriber) == [("2026-11", 9_333_333, 698)]
    bucket = Bucket.objects.get()
    today = at("2026-11-24 00:00")  # the day of the start is paid for as a whole
    assert (bucket.valid_from, bucket.valid_until) == (today, at("2026-12-01 00:00"))
    assert (bucket.kind, bucket.priority, bucket.remaining_mt) == ("plan", 20, 9_333_333_000)
    charge = Charge.objects.get()
    assert (charge.period_start, charge.period_end) == (NOON, at("2026-12-01 00:00"))
    assert (charge.tax_category, charge.account_id) == ("token_package", subscriber.account_id)
    assert subscription.renews_at == at("2026-12-01 00:00")
    assert verify() == []


def test_a_start_on_the_first_of_next_month_waits_for_it(subscriber: Subscriber) -> None:
    subscribe(subscriber, starts="2026-12-01 00:00")
    assert months(subscriber) == []
    assert subscribing.renew_due(now=at("2026-11-30 23:59")) == 0
    assert subscribing.renew_due(now=at("2026-12-01 00:00")) == 1
    assert months(subscriber) == [("2026-12", 40_000_000, 2990)]


def test_a_start_in_the_past_is_made_good_month_by_month(subscriber: Subscriber) -> None:
    subscribe(subscriber, plan="token-9.9", starts="2026-07-20 00:00")
    assert months(subscriber) == [
        ("2026-07", 3_870_967, 383),
        ("2026-08", 10_000_000, 990),
        ("2026-09", 10_000_000, 990),
        ("2026-10", 10_000_000, 990),
        ("2026-11", 10_000_000, 990),
    ]
    august = Bucket.objects.get(key__endswith=":2026-08")
    assert august.valid_from == at("2026-08-01 00:00")
    assert august.valid_until == at("2026-09-01 00:00")


@pytest.mark.parametrize(
    ("starts", "cycle", "days", "of"),
    [
        ("2026-10-31 23:59:59", "2026-10", 1, 31),  # 15:59:59 UTC
        ("2026-11-01 00:00:00", "2026-11", 30, 30),  # 16:00:00 UTC of the day before
        ("2026-02-28 12:00:00", "2026-02", 1, 28),
    ],
)
def test_bill_03_a_month_is_cut_in_the_billing_zone(
    subscriber: Subscriber, starts: str, cycle: str, days: int, of: int
) -> None:
    subscribe(subscriber, plan="token-9.9", starts=starts)
    assert months(subscriber)[0][:2] == (cycle, 10_000_000 * days // of)


def test_pay_as_you_go_has_terms_and_neither_fee_nor_tokens(subscriber: Subscriber) -> None:
    subscription = subscribe(subscriber, plan="payg-4")
    profile = ChargingProfile.objects.get(subscriber=subscriber)
    assert (profile.beyond, profile.payg_fen_per_million) == ("payg", 400)
    assert profile.payg_cap_mt == 500_000_000_000
    assert not Bucket.objects.exists()
    assert not Charge.objects.exists()
    assert subscription.renews_at == at("2026-12-01 00:00")
    assert subscribing.renew_due(now=at("2026-12-01 00:00")) == 1


def test_a_new_version_changes_no_plan_that_is_held(subscriber: Subscriber) -> None:
    subscription = subscribe(subscriber)
    terms = (subscription.price_fen, subscription.tokens)
    with connection.cursor() as cursor:  # a dearer version, as a load would add it
        cursor.execute(
            "INSERT INTO plans_planversion SELECT (SELECT max(id) + 1000 FROM plans_planversion),"
            " version + 1, checksum, name, name_en, audience, price_fen * 2, tokens, validity_days,"
            " priority, model_codes, beyond, payg_fen_per_million, payg_cap_tokens, tax_category,"
            " on_sale, loaded_at, plan_id FROM plans_planversion WHERE id = %s",
            [subscription.version_id],
        )
    assert catalogue.version_on_sale("token-29.9").price_fen == 5980
    subscribing.renew_due(now=at("2026-12-01 00:00"))
    assert months(subscriber)[-1] == ("2026-12", terms[1], terms[0])


@pytest.mark.parametrize(
    ("plan", "starts", "refusal"),
    [
        ("nothing", "2026-11-24 12:00", UnknownPlan),
        ("pack-250k", "2026-11-24 12:00", WrongKindOfPlan),
        ("token-9.9", "2020-01-01 00:00", StartRefused),
        ("token-9.9", "2036-01-01 00:00", StartRefused),
    ],
)
def test_what_cannot_be_sold_is_refused(
    subscriber: Subscriber, plan: str, starts: str, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        subscribe(subscriber, plan=plan, starts=starts)
    assert not Subscription.objects.exists()


def test_only_an_active_subscriber_can_subscribe(subscriber: Subscriber) -> None:
    lifecycle.suspend(subscriber_id=subscriber.pk, actor="clerk", reason="lost", now=NOON)
    with pytest.raises(SubscriberNotActive):
        subscribe(subscriber)
    with pytest.raises(UnknownSubscriber):
        subscribing.subscribe(
            subscriber_id=0, plan_code="token-9.9", starts_at=NOON, actor="clerk", now=NOON
        )


def test_one_plan_at_a_time_and_the_next_one_where_it_ends(subscriber: Subscriber) -> None:
    subscription = subscribe(subscriber, plan="payg-4")
    with pytest.raises(AlreadySubscribed):
        subscribe(subscriber, starts="2026-12-01 00:00")
    ended = subscribing.end_subscription(subscription_id=subscription.pk, actor="clerk", now=NOON)
    assert ended is not None
    assert ended.ends_at == at("2026-12-01 00:00")
    subscribe(subscriber, starts="2026-12-01 00:00")
    subscribing.renew_due(now=at("2026-12-01 00:00"))
    assert months(subscriber) == [("2026-12", 40_000_000, 2990)]
    profile = ChargingProfile.objects.get(subscriber=subscriber)
    assert (profile.beyond, profile.payg_cap_mt) == ("stop", 0)
    assert subscribing.renew_due(now=at("2026-12-01 00:01")) == 0


def test_the_end_of_pay_as_you_go_closes_what_lies_beyond(subscriber: Subscriber) -> None:
    subscription = subscribe(subscriber, plan="payg-4")
    subscribing.end_subscription(subscription_id=subscription.pk, actor="clerk", now=NOON)
    subscribing.renew_due(now=at("2026-11-30 23:59"))
    assert ChargingProfile.objects.get().beyond == "payg"
    subscribing.renew_due(now=at("2026-12-01 00:00"))
    assert ChargingProfile.objects.get().beyond == "stop"
    subscription.refresh_from_db()
    assert subscription.renews_at == NEVER
    with pytest.raises(EndRefused):
        subscribing.end_subscription(subscription_id=subscription.pk, actor="clerk", now=NOON)


def test_a_plan_ends_only_where_a_cycle_ends(subscriber: Subscriber) -> None:
    subscription = subscribe(subscriber)
    for wrong in ("2026-11-28 00:00", "2026-12-15 00:00", "2026-11-01 00:00"):
        with pytest.raises(EndRefused):
            subscribing.end_subscription(
                subscription_id=subscription.pk, actor="clerk", now=NOON, ends_at=at(wrong)
            )
    later = at("2027-02-01 00:00")
    subscribing.end_subscription(
        subscription_id=subscription.pk, actor="clerk", now=NOON, ends_at=later
    )
    subscribing.renew_due(now=at("2027-05-05 00:00"))
    assert [cycle for cycle, _, _ in months(subscriber)] == ["2026-11", "2026-12", "2027-01"]


def test_a_plan_that_never_began_is_removed_when_it_is_ended(subscriber: Subscriber) -> None:
    subscription = subscribe(subscriber, starts="2026-12-01 00:00")
    subscribing.end_subscription(subscription_id=subscription.pk, actor="clerk", now=NOON)
    assert not Subscription.objects.exists()


def test_a_plan_ends_with_its_subscriber_and_the_begun_month_is_owed(
    subscriber: Subscriber,
) -> None:
    subscribe(subscriber)
    # The renewal of December has not come round yet.
    gone = at("2026-12-01 00:00:30")
    lifecycle.terminate(subscriber_id=subscriber.pk, actor="clerk", reason="left", now=gone)
    assert [cycle for cycle, _, _ in months(subscriber)] == ["2026-11", "2026-12"]
    assert Subscription.objects.get().ends_at == gone
    assert subscribing.renew_due(now=at("2027-01-01 00:00")) == 0
    assert verify() == []


def test_a_plan_bought_for_next_month_goes_with_its_subscriber(subscriber: Subscriber) -> None:
    subscribe(subscriber, starts="2026-12-01 00:00")
    lifecycle.terminate(subscriber_id=subscriber.pk, actor="clerk", reason="left", now=NOON)
    assert not Subscription.objects.exists()


def test_a_suspended_subscriber_keeps_the_plan_and_pays_for_it(subscriber: Subscriber) -> None:
    subscribe(subscriber)
    lifecycle.suspend(subscriber_id=subscriber.pk, actor="clerk", reason="lost", now=NOON)
    assert subscribing.renew_due(now=at("2026-12-01 00:00")) == 1
    assert months(subscriber)[-1] == ("2026-12", 40_000_000, 2990)
