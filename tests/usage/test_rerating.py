"""Rating again: what the dry run says is what is applied, once, whoever is killed meanwhile."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from accounts.models import Subscriber
from usage import corrections, profiles, proof, reports, rerating
from usage.models import Amendment, Bucket, InferenceModel, Node, Rerating, UsageEvent, Weight
from usage.normalising import Counts
from usage.weights import WeightRefused, correct_weight, put_weight

from .conftest import END, HOUR, NOON, SECOND, START, at, event, give, left, send

LATER = NOON + HOUR
PLAIN = {"input": 1000, "cached": 1000, "output": 1000, "reasoning": 1000}


@pytest.fixture(autouse=True)
def proven(db: None) -> Iterator[None]:
    """Every test of this file ends with a clean proof."""
    yield
    assert proof.verify() == []
    assert proof.period_totals(start=date(2026, 9, 1), end=date(2027, 1, 1))[1] == []


def correct(code: str = "plain", **milli: int) -> Weight:
    """Put another weight in the place of a model's only one."""
    wrong = Weight.objects.get(model__code=code, withdrawn_at=None)
    values = {f"{kind}_milli": one for kind, one in (PLAIN | milli).items()}
    return correct_weight(
        weight_id=wrong.pk, actor="clerk", reason="typing error", now=LATER, **values
    )


def dry(start: datetime = START, end: datetime = END, code: str = "plain") -> Rerating:
    return rerating.dry_run(
        model_code=code, start=start, end=end, actor="clerk", reason="typing error", now=LATER
    )


def applied(found: Rerating) -> Rerating:
    rerating.begin(rerating_id=found.pk, actor="boss", now=LATER)
    return rerating.apply(rerating_id=found.pk, clock=lambda: LATER)


def test_a_dry_run_moves_nothing_and_says_what_would(
    node: Node, subscriber: Subscriber, neighbour: Subscriber, month: Bucket
) -> None:
    send(node, event("e1", 10), event("e2", 20), event("e3", 5, subject="+8613900000002"))
    send(node, event("e4", 7, model="fine"))
    correct(input=3000)
    report = dry().report
    assert left(month) == 1_000_000 - 37_000 and not Amendment.objects.exists()
    assert (report["events"], report["changed"], report["subscribers"]) == (3, 3, 2)
    assert (report["former_mt"], report["mt"], report["difference_mt"]) == (35_000, 105_000, 70_000)
    assert report["by_subscriber"] == [
        {
            "subscriber": subscriber.pk,
            "events": 2,
            "former_mt": 30_000,
            "mt": 90_000,
            "difference_mt": 60_000,
        },
        {
            "subscriber": neighbour.pk,
            "events": 1,
            "former_mt": 5_000,
            "mt": 15_000,
            "difference_mt": 10_000,
        },
    ]


def test_every_subscriber_s_difference_is_told_however_many_they_are(
    node: Node,
    subscriber: Subscriber,
    neighbour: Subscriber,
    month: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rerating, "MOST_SUBSCRIBERS", 1)
    send(node, event("e1", 10), event("e2", 20), event("e3", 5, subject="+8613900000002"))
    send(node, event("e4", 0), event("e5", 7, model="fine"))
    corrections.void(
        event_id=UsageEvent.objects.get(event_id="e5").pk, actor="clerk", reason="r", key="v",
        now=LATER,
    )  # fmt: skip
    correct(input=3000)
    found = dry()
    mine = {"subscriber": subscriber.pk, "events": 2, "difference_mt": 60_000}
    theirs = {"subscriber": neighbour.pk, "events": 1, "difference_mt": 10_000}
    assert len(found.report["by_subscriber"]) == 1

    def pages() -> list[dict[str, Any]]:
        told, after = rerating.differences(rerating_id=found.pk, after=0)
        while after is not None:
            page, after = rerating.differences(rerating_id=found.pk, after=after)
            assert len(page) <= 1
            told = [*told, *page]
        return told

    assert pages() == [mine, theirs]
    begun, _new = rerating.begin(rerating_id=found.pk, actor="boss", now=LATER)
    assert pages() == []  # nothing is applied yet
    rerating.apply_part(rerating=begun, owners=[subscriber.pk], now=LATER)
    assert pages() == [mine]
    rerating.apply(rerating_id=found.pk, clock=lambda: LATER)
    assert pages() == [mine, theirs]


@pytest.mark.parametrize(("milli", "mt"), [(3000, 90_000), (500, 15_000), (0, 0)])
def test_what_is_applied_is_what_the_dry_run_said(
    node: Node, month: Bucket, milli: int, mt: int
) -> None:
    send(node, event("e1", 10), event("e2", 20))
    correct(input=milli)
    found = applied(dry())
    assert found.state == "applied" and found.applied_by == "boss"
    assert found.report["applied"] == {
        "changed": found.report["changed"],
        "difference_mt": found.report["difference_mt"],
    }
    assert left(month) == 1_000_000 - mt
    assert dry().report["changed"] == 0


def test_rating_again_replaces_and_never_adds(node: Node, month: Bucket) -> None:
    """USG-03."""
    send(node, event("e1", 10))
    correct(input=3000)
    first = applied(dry())
    applied(first)
    applied(dry())
    assert left(month) == 970_000
    correct(input=2000)
    applied(dry())
    assert left(month) == 980_000
    assert [one.mt for one in Amendment.objects.order_by("id")] == [20_000, -10_000]


def test_a_weight_that_should_have_changed_earlier(node: Node, month: Bucket) -> None:
    send(node, event("e1", 10, at=NOON - 2 * HOUR), event("e2", 10))
    put_weight(
        model_code="plain", input_milli=500, cached_milli=500, output_milli=500,
        reasoning_milli=500, valid_from=NOON - HOUR, now=LATER,
    )  # fmt: skip
    applied(dry())
    assert left(month) == 1_000_000 - 10_000 - 5_000


def test_the_period_is_half_open(node: Node, month: Bucket) -> None:
    send(node, *(event(f"e{place}", 1, at=NOON + place * SECOND) for place in range(4)), now=LATER)
    correct(input=2000)
    report = dry(NOON + SECOND, NOON + 3 * SECOND).report
    assert (report["events"], report["difference_mt"]) == (2, 2_000)


def test_amended_and_voided_events_are_rated_as_they_stand(node: Node, month: Bucket) -> None:
    send(node, event("e1", 10), event("e2", 20))
    numbers = dict(UsageEvent.objects.values_list("event_id", "id"))
    about: dict[str, Any] = {"actor": "clerk", "reason": "r", "now": LATER}
    corrections.void(event_id=numbers["e1"], key="v", **about)
    corrections.amend(event_id=numbers["e2"], counts=Counts(8, 0, 0, 0), key="a", **about)
    correct(input=3000)
    applied(dry())
    assert left(month) == 1_000_000 - 24_000
    # What comes after is rated by the weight that holds now.
    corrections.amend(event_id=numbers["e2"], counts=Counts(9, 0, 0, 0), key="b", **about)
    assert left(month) == 1_000_000 - 27_000
    corrections.void(event_id=numbers["e2"], key="w", **about)
    assert left(month) == 1_000_000


def test_kinds_are_read_at_the_weight_that_holds(node: Node, subscriber: Subscriber) -> None:
    send(node, event("e1", usage={"prompt_tokens": 10, "completion_tokens": 4}))
    correct(input=2000, output=5000)
    applied(dry())
    rows = reports.usage_series(subscriber_id=subscriber.pk, start=START, end=END, group_by="kind")
    kinds = {row["key"]: (row["tokens"], row["mt"]) for row in rows}
    assert (kinds["input"], kinds["output"]) == ((10, 20_000), (4, 20_000))


def test_overage_is_rated_again_within_the_cap(node: Node, bare: Subscriber) -> None:
    bucket = give(bare, 10)
    profiles.set_terms(
        subscriber_id=bare.pk, beyond="payg", payg_fen_per_million=400, payg_cap_mt=5_000, now=NOON
    )
    send(node, event("e1", 12))
    correct(input=2000)
    applied(dry())
    totals, _ = proof.period_totals(start=date(2026, 11, 1), end=date(2026, 12, 1))
    names = ("accepted_mt", "debited_mt", "overage_mt", "uncovered_mt")
    assert tuple(totals[name] for name in names) == (24_000, 10_000, 5_000, 9_000)
    correct(input=500)
    applied(dry())
    totals, _ = proof.period_totals(start=date(2026, 11, 1), end=date(2026, 12, 1))
    assert tuple(totals[name] for name in names) == (6_000, 6_000, 0, 0)
    assert left(bucket) == 4_000


def test_weights_that_changed_since_the_dry_run_ask_for_a_new_one(
    node: Node, month: Bucket
) -> None:
    send(node, event("e1", 10))
    correct(input=3000)
    found = dry()
    correct(input=2000)
    with pytest.raises(rerating.RerateRefused):
        applied(found)
    assert left(month) == 990_000


def test_what_cannot_be_rated_again_is_refused(models: dict[str, InferenceModel]) -> None:
    for more in ({"code": "nothing"}, {"start": END}):
        with pytest.raises(rerating.RerateRefused):
            dry(**more)
    with pytest.raises(rerating.UnknownRerating):
        rerating.begin(rerating_id=1, actor="boss", now=LATER)


def test_a_withdrawn_weight_stays_as_evidence_and_rates_nothing(node: Node, month: Bucket) -> None:
    send(node, event("e1", 10))
    wrong = Weight.objects.get(model__code="plain")
    right = correct(input=3000)
    send(node, event("e2", 10))
    assert left(month) == 960_000
    wrong.refresh_from_db()
    assert (wrong.withdrawn_by, wrong.withdrawn_reason) == ("clerk", "typing error")
    assert (right.valid_from, right.valid_until) == (wrong.valid_from, wrong.valid_until)
    # The catalogue still says what was wrong: loading it again changes nothing.
    again, new = put_weight(
        model_code="plain", input_milli=1000, cached_milli=1000, output_milli=1000,
        reasoning_milli=1000, valid_from=wrong.valid_from, now=LATER,
    )  # fmt: skip
    assert (again.pk, new) == (right.pk, False)
    with pytest.raises(WeightRefused):
        correct_weight(
            weight_id=wrong.pk, input_milli=1, cached_milli=1, output_milli=1, reasoning_milli=1,
            actor="clerk", reason="r", now=LATER,
        )  # fmt: skip


def many(node: Node, count: int) -> None:
    """Events of two subscribers, a token each."""
    numbers = ("+8613900000001", "+8613900000002")
    send(node, *(event(f"e{one}", 1, subject=numbers[one % 2]) for one in range(count)))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten events a transaction, so that there are many."""
    monkeypatch.setattr(rerating, "EVENTS_AT_ONCE", 10)
    monkeypatch.setattr(rerating, "SUBSCRIBERS_AT_ONCE", 1)


def _work(number: int) -> None:
    """A worker's life: rate again until killed."""
    connection.close()
    rerating.apply(rerating_id=number, clock=lambda: LATER)


@pytest.mark.django_db(transaction=True)
def test_a_worker_killed_while_it_applies_is_followed_by_another(
    node: Node, month: Bucket, neighbour: Subscriber, small_parts: None
) -> None:
    many(node, 200)
    correct(input=3000)
    found = dry()
    rerating.begin(rerating_id=found.pk, actor="boss", now=LATER)
    connection.close()
    kills = 0
    for _attempt in range(3):
        before = Amendment.objects.count()
        connection.close()
        worker = multiprocessing.get_context("fork").Process(target=_work, args=(found.pk,))
        worker.start()
        deadline = time.monotonic() + 30
        while Amendment.objects.count() == before and time.monotonic() < deadline:
            time.sleep(0.002)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        kills += 0 < Amendment.objects.count() < 200
        assert proof.verify() == []
    assert kills, "no worker was killed at its work"
    assert rerating.waiting(now=LATER) == []
    assert rerating.waiting(now=LATER + timedelta(minutes=3)) == [found.pk]
    done = rerating.apply(rerating_id=found.pk, clock=lambda: LATER)
    assert done.report["applied"] == {"changed": 200, "difference_mt": 400_000}
    assert left(month) == 1_000_000 - 300_000


@pytest.mark.django_db(transaction=True)
def test_four_workers_at_once_rate_each_event_again_once(
    node: Node, month: Bucket, neighbour: Subscriber, small_parts: None
) -> None:
    many(node, 100)
    correct(input=2000)
    found = dry()
    rerating.begin(rerating_id=found.pk, actor="boss", now=LATER)

    def work(_place: int) -> str:
        try:
            return rerating.apply(rerating_id=found.pk, clock=lambda: LATER).state
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(work, range(4))) == {"applied"}
    assert Amendment.objects.count() == 100
    assert left(month) == 1_000_000 - 100_000


def test_usage_goes_on_while_a_period_is_rated_again(
    node: Node, month: Bucket, small_parts: None
) -> None:
    many_tokens = [event(f"e{one}", 1) for one in range(30)]
    send(node, *many_tokens)
    correct(input=2000)
    found = dry()
    rerating.begin(rerating_id=found.pk, actor="boss", now=LATER)
    asked = iter(range(1000))

    def clock() -> datetime:
        send(node, event(f"new{next(asked)}", 1, at=at("2026-11-24 12:10")), now=LATER)
        return LATER

    done = rerating.apply(rerating_id=found.pk, clock=clock)
    assert done.report["applied"]["changed"] == 30
    assert left(month) == 1_000_000 - 60_000 - 2_000 * next(asked)
