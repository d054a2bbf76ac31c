"""Who pays for an event: at the edges of validity, late, beyond the buckets, in which cycle."""

import random
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from accounts import lifecycle
from accounts.models import Subscriber
from invoicing.money import overage_fen
from usage import balances, ledger, movements, profiles, proof
from usage.models import (
    Bucket,
    CycleOverage,
    InferenceModel,
    LedgerEntry,
    Node,
    Overage,
    UsageEvent,
)

from .conftest import (
    END,
    HOUR,
    INSTANT,
    NOON,
    SECOND,
    START,
    at,
    counts,
    event,
    give,
    left,
    make_subscriber,
    send,
)


def payg(subscriber: Subscriber, *, cap: int, fen: int = 400) -> None:
    """Sell up to `cap` standard tokens a cycle beyond the buckets."""
    profiles.set_terms(
        subscriber_id=subscriber.pk, beyond="payg", payg_fen_per_million=fen,
        payg_cap_mt=cap * 1000, now=NOON,
    )  # fmt: skip


def beyond() -> list[tuple[str, int, bool, int]]:
    """(event, mt, priced, fen per million) of all overage, in order."""
    names = dict(UsageEvent.objects.values_list("id", "event_id"))
    return [
        (names[row.event_id], row.mt, row.priced, row.fen_per_million)
        for row in Overage.objects.order_by("id")
    ]


@pytest.mark.parametrize(
    ("occurred", "debited"),
    [(START - INSTANT, 0), (START, 10_000), (END - INSTANT, 10_000), (END, 0)],
)
def test_a_bucket_pays_from_its_first_instant_to_just_before_its_end(
    node: Node, month: Bucket, occurred: datetime, debited: int
) -> None:
    result = send(node, event("e1", 10, at=occurred), now=max(occurred, START) + SECOND)
    assert result.tally.debited_mt == debited
    assert result.tally.uncovered_mt == 10_000 - debited
    assert left(month) == 1_000_000 - debited


def test_within_the_grace_the_month_of_use_pays(node: Node, bare: Subscriber) -> None:
    november = give(bare, 10)
    december = give(bare, 10, start=END, end=at("2027-01-01 00:00"))
    now = END + HOUR - INSTANT
    send(node, event("e1", 4, at=END - SECOND), event("e2", 3, at=END), now=now)
    assert (left(november), left(december)) == (6000, 7000)
    assert not UsageEvent.objects.filter(late=True).exists()


def test_after_the_close_todays_balance_pays_and_it_is_flagged(
    node: Node, bare: Subscriber
) -> None:
    november = give(bare, 10)
    december = give(bare, 10, start=END, end=at("2027-01-01 00:00"))
    ledger.close_due_buckets(now=END + HOUR)
    now = END + HOUR + SECOND
    batch = [event("late", 4, at=END - SECOND), event("fresh", 3, at=END)]
    assert counts(send(node, *batch, now=now)) == (2, 0, 0, 0)
    assert (left(november), left(december)) == (0, 3000)
    late = dict(UsageEvent.objects.values_list("event_id", "late"))
    assert late == {"late": True, "fresh": False}
    assert proof.verify() == []


def test_a_day_without_any_bucket_is_beyond_but_not_late(node: Node, month: Bucket) -> None:
    result = send(node, event("e1", 4, at=START - SECOND), now=NOON)
    assert result.tally.uncovered_mt == 4000
    assert not UsageEvent.objects.get().late
    assert left(month) == 1_000_000


def test_a_later_grant_does_not_pay_what_was_used_before(node: Node, bare: Subscriber) -> None:
    used = NOON - HOUR  # life-04
    send(node, event("e1", 40, at=used), now=used)
    bucket = give(bare, 100, start=NOON, end=END, now=NOON)
    result = send(node, event("e2", 40, at=NOON - INSTANT))
    assert (left(bucket), result.tally.uncovered_mt) == (100_000, 40_000)
    assert sum(row.mt for row in Overage.objects.all()) == 80_000


def test_events_are_charged_in_order_of_their_time_not_of_the_batch(
    node: Node, bare: Subscriber
) -> None:
    give(bare, 10)
    send(node, event("second", 8), event("first", 8, at=NOON - SECOND))
    assert beyond() == [("second", 6000, False, 0)]


def test_at_one_instant_the_earlier_in_the_batch_pays_first(node: Node, bare: Subscriber) -> None:
    give(bare, 10)
    send(node, event("first", 8), event("second", 8))
    assert beyond() == [("second", 6000, False, 0)]


def test_a_model_restricted_bucket_pays_for_its_models_only(
    node: Node, bare: Subscriber, models: dict[str, InferenceModel]
) -> None:
    for_all = give(bare, 10)
    for_heavy = give(bare, 100, model_ids=[models["heavy"].pk])
    send(node, event("e1", 1, model="heavy"), event("e2", 1))
    assert (left(for_all), left(for_heavy)) == (9000, 90_000)


def test_buckets_that_were_granted_by_turns_pay_for_their_own_subscriber(
    node: Node, bare: Subscriber
) -> None:
    other = make_subscriber(bare.account, "+8613900000088")
    with connection.cursor() as cursor:  # so that rows come as they lie in the table
        cursor.execute("DISCARD PLANS; SET LOCAL enable_indexscan = off")
        cursor.execute("SET LOCAL enable_bitmapscan = off")
    for _turn in range(3):
        give(bare, 10)
        give(other, 10)
    used = [event("own", 30), event("other", 30, subject=str(other.msisdn))]
    assert counts(send(node, *used)) == (2, 0, 0, 0)
    assert not Overage.objects.exists()
    assert not Bucket.objects.exclude(remaining_mt=0).exists()


def test_what_beyond_stop_is_used_is_uncovered(node: Node, bare: Subscriber) -> None:
    give(bare, 10)
    result = send(node, event("e1", 25))
    assert (result.tally.debited_mt, result.tally.uncovered_mt) == (10_000, 15_000)
    assert beyond() == [("e1", 15_000, False, 0)]


def test_who_stops_at_the_buckets_is_never_charged_money(node: Node, bare: Subscriber) -> None:
    """BAL-01: the plan's stop is the blocker, at the report too, which takes what is left."""
    bucket = give(bare, 10)
    assert send(node, event("e1", 8)).tally.debited_mt == 8000
    result = send(node, event("e2", 3))
    assert (result.tally.debited_mt, result.tally.overage_mt) == (2000, 0)
    assert (left(bucket), beyond()) == (0, [("e2", 1000, False, 0)])


def test_pay_as_you_go_is_priced_up_to_the_cap_and_uncovered_beyond(
    node: Node, bare: Subscriber
) -> None:
    give(bare, 10)
    payg(bare, cap=20)
    first = send(node, event("e1", 25), event("e2", 10, at=NOON + SECOND))
    assert (first.tally.overage_mt, first.tally.uncovered_mt) == (20_000, 5000)
    second = send(node, event("e3", 1))
    assert (second.tally.overage_mt, second.tally.uncovered_mt) == (0, 1000)
    assert beyond() == [
        ("e1", 15_000, True, 400),
        ("e2", 5000, True, 400),
        ("e2", 5000, False, 0),
        ("e3", 1000, False, 0),
    ]
    total = CycleOverage.objects.get()
    assert (total.priced_mt, total.uncovered_mt) == (20_000, 6000)
    balance = balances.balance(subscriber_id=bare.pk, now=NOON)
    assert (balance.priced_overage_mt, balance.uncovered_mt) == (20_000, 6000)
    assert proof.verify() == []


def test_the_cap_starts_anew_with_the_cycle_of_use(node: Node, bare: Subscriber) -> None:
    payg(bare, cap=20)
    batch = [event("nov", 30, at=END - INSTANT), event("dec", 30, at=END)]
    send(node, *batch, now=END + SECOND)
    totals = CycleOverage.objects.order_by("cycle").values_list("cycle", "priced_mt")
    assert list(totals) == [(date(2026, 11, 1), 20_000), (date(2026, 12, 1), 20_000)]


def test_overage_belongs_to_the_month_of_use_in_the_billing_zone(
    node: Node, bare: Subscriber
) -> None:
    payg(bare, cap=100)
    before = datetime.fromisoformat("2026-11-30T15:59:59.999999+00:00")  # BILL-03
    batch = [event("nov", 1, at=before), event("dec", 1, at=before + INSTANT)]
    send(node, *batch, now=END + timedelta(days=2))
    cycles = list(Overage.objects.order_by("occurred_at").values_list("cycle", flat=True))
    assert cycles == [date(2026, 11, 1), date(2026, 12, 1)]


def test_rolled_over_then_plan_then_pack_then_pay_as_you_go(node: Node, bare: Subscriber) -> None:
    pack = give(bare, 400_000, kind="pack")  # BAL-14
    plan = give(bare, 10_000_000, kind="plan")
    rolled = give(bare, 1_000_000, kind="rollover")
    payg(bare, cap=10**9, fen=400)
    send(node, event("e1", 500_000))
    assert (left(rolled), left(plan), left(pack)) == (500_000_000, 10**10, 400_000_000)
    result = send(node, event("e2", 11_100_000))
    assert (left(rolled), left(plan), left(pack)) == (0, 0, 0)
    assert result.tally.overage_mt == 200_000_000
    assert overage_fen(result.tally.overage_mt, 400) == 80


@pytest.mark.parametrize("step", ["suspend", "terminate"])
def test_usage_of_one_who_may_not_be_served_is_accepted(
    node: Node, subscriber: Subscriber, month: Bucket, step: str
) -> None:
    getattr(lifecycle, step)(subscriber_id=subscriber.pk, actor="c", reason="r", now=NOON)
    result = send(node, event("e1", 1, subject=str(subscriber.pk)), now=NOON + SECOND)
    assert counts(result) == (1, 0, 0, 0)
    assert result.tally.debited_mt + result.tally.uncovered_mt == 1000
    assert [reason for _subject, reason in result.exhausted] == [f"{step.rstrip('e')}ed"]


def test_an_event_without_tokens_is_counted_and_costs_nothing(node: Node, month: Bucket) -> None:
    assert counts(send(node, event("e1", 0))) == (1, 0, 0, 0)
    assert left(month) == 1_000_000
    assert not LedgerEntry.objects.filter(kind="debit").exists()
    assert proof.verify() == []


def test_a_weight_of_the_time_of_use_rates(node: Node, month: Bucket) -> None:
    from usage.weights import put_weight

    put_weight(
        model_code="plain", input_milli=2000, cached_milli=2000, output_milli=2000,
        reasoning_milli=2000, valid_from=NOON, now=NOON,
    )  # fmt: skip
    send(node, event("e1", 1, at=NOON - INSTANT), event("e2", 1, at=NOON))
    assert dict(UsageEvent.objects.values_list("event_id", "mt")) == {"e1": 1000, "e2": 2000}


def test_what_is_reserved_pays_for_no_other_event(node: Node, month: Bucket) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("UPDATE usage_bucket SET reserved_mt = 999000")
    result = send(node, event("e1", 3))
    assert (result.tally.debited_mt, result.tally.uncovered_mt) == (1000, 2000)


def test_a_random_life_conserves_every_millitoken(
    node: Node, subscriber: Subscriber, neighbour: Subscriber, month: Bucket
) -> None:
    """late-07: in every answer and at every read, what was used and what is left add up."""
    dice = random.Random(20261124)
    people = [subscriber, neighbour]
    payg(neighbour, cap=300)
    sent: list[dict[str, Any]] = []
    accepted_mt = 0
    for step in range(40):
        now = NOON + step * SECOND
        kind = dice.choice(["usage"] * 6 + ["grant", "adjust", "late"])
        if kind == "grant":
            give(dice.choice(people), dice.randint(1, 300), kind="pack", now=now)
        elif kind == "adjust":
            movements.adjust(
                bucket_id=month.pk, amount_mt=dice.randint(1, 9999), key=f"step {step}",
                actor="c", reason="r", now=now,
            )  # fmt: skip
        else:
            used = now - (timedelta(days=dice.randint(20, 40)) if kind == "late" else SECOND)
            sent += [
                event(
                    f"{step}-{n}", dice.randint(0, 90), at=used, subject=dice.choice(people).msisdn
                )
                for n in range(dice.randint(1, 5))
            ]
            result = send(node, *dice.sample(sent, min(len(sent), 6)), now=now)
            counts(result)  # asserts that tokens and events of the answer add up
            accepted_mt += result.tally.accepted_mt
    granted = sum(one.granted_mt + one.adjusted_mt for one in Bucket.objects.all())
    remaining = sum(one.remaining_mt for one in Bucket.objects.all())
    outside = sum(row.mt for row in Overage.objects.all())
    assert accepted_mt == granted - remaining + outside
    assert proof.verify() == []
    totals, differences = proof.period_totals(start=date(2026, 9, 1), end=date(2026, 12, 1))
    assert (totals["accepted_mt"], differences) == (accepted_mt, [])
