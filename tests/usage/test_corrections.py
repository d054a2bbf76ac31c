"""Void and amend: what an event took goes back where it came from, exactly and once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from typing import Any

import pytest
from django.db import connection

from accounts.models import Subscriber
from usage import corrections, ledger, profiles, proof, reports
from usage.models import (
    Amendment,
    BlockChange,
    Bucket,
    CycleOverage,
    LedgerEntry,
    Node,
    Overage,
    UsageBatch,
    UsageEvent,
)
from usage.normalising import Counts

from .conftest import END, HOUR, INSTANT, NOON, START, at, event, give, left, send

LATER = NOON + HOUR


def number_of(event_id: str) -> int:
    """The stored number of an event."""
    return UsageEvent.objects.get(event_id=event_id).pk


def void(event_id: str, *, key: str | None = None, **more: Any) -> Amendment:
    return corrections.void(
        event_id=number_of(event_id), actor="clerk", reason="wrong report",
        key=key or f"void:{event_id}", now=more.get("now", LATER),
    )  # fmt: skip


def amend(event_id: str, tokens: int, *, key: str = "", **more: Any) -> Amendment:
    return corrections.amend(
        event_id=number_of(event_id), counts=Counts(tokens, 0, 0, 0), actor="clerk",
        reason="wrong count", key=key or f"amend:{event_id}:{tokens}",
        now=more.get("now", LATER),
    )  # fmt: skip


def payg(subscriber: Subscriber, *, cap: int, fen: int = 400) -> None:
    profiles.set_terms(
        subscriber_id=subscriber.pk, beyond="payg", payg_fen_per_million=fen,
        payg_cap_mt=cap * 1000, now=NOON,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def proven(request: pytest.FixtureRequest, db: None) -> Any:
    """Every test of this file ends with a clean proof."""
    yield
    assert proof.verify() == []
    assert proof.period_totals(start=date(2026, 9, 1), end=date(2027, 1, 1))[1] == []


def test_a_void_gives_the_bucket_back_what_the_event_took(node: Node, month: Bucket) -> None:
    send(node, event("e1", 10), event("e2", 20))
    void("e1")
    assert left(month) == 980_000
    entry = LedgerEntry.objects.get(kind="refund")
    assert (entry.amount_mt, entry.actor, entry.reason) == (10_000, "clerk", "wrong report")
    assert entry.event_id == Amendment.objects.get().pk
    totals, _ = proof.period_totals(start=date(2026, 11, 24), end=date(2026, 11, 25))
    assert (totals["accepted"], totals["accepted_mt"], totals["debited_mt"]) == (2, 20_000, 20_000)


def test_a_void_over_several_buckets_restores_each_of_them(node: Node, bare: Subscriber) -> None:
    buckets = [
        give(bare, 10, kind="plan"),
        give(bare, 10, kind="pack"),
        give(bare, 10, kind="promotion"),
    ]
    send(node, event("e1", 25))
    assert [left(one) for one in buckets] == [0, 0, 5_000]
    void("e1")
    assert [left(one) for one in buckets] == [10_000] * 3
    refunds = LedgerEntry.objects.filter(kind="refund").order_by("id")
    assert [one.bucket_id for one in refunds] == [one.pk for one in reversed(buckets)]


def test_less_is_taken_back_from_the_bucket_that_paid_last(node: Node, bare: Subscriber) -> None:
    first, second = give(bare, 10, kind="plan"), give(bare, 10, kind="pack")
    send(node, event("e1", 15))
    amend("e1", 12)
    assert (left(first), left(second)) == (0, 8_000)
    amend("e1", 4)
    assert (left(first), left(second)) == (6_000, 10_000)
    void("e1")
    assert (left(first), left(second)) == (10_000, 10_000)


def test_what_returns_to_a_closed_bucket_expires_at_once(node: Node, bare: Subscriber) -> None:
    ended = give(bare, 10, end=at("2026-11-20 00:00"), now=START)
    open_one = give(bare, 10, kind="pack")
    send(node, event("e1", 15, at=at("2026-11-19 12:00")), now=at("2026-11-19 12:00"))
    ledger.close_due_buckets(now=NOON)
    void("e1")
    assert (left(ended), left(open_one)) == (0, 10_000)
    kinds = LedgerEntry.objects.filter(bucket_id=ended.pk, event_id__isnull=False).order_by("id")
    assert [(one.kind, one.amount_mt) for one in kinds] == [
        ("debit", -10_000),
        ("refund", 10_000),
        ("expiry", -10_000),
    ]


def test_a_bucket_that_expired_is_given_back_nothing(node: Node, bare: Subscriber) -> None:
    """BAL-10: of 10 the short bucket paid 1. Where all is taken back and charged anew, 3,599 are
    left; we take back the difference alone, so the expired unit goes on paying: 3,600."""
    main = give(bare, 3600, kind="pack")
    short = give(bare, 1, end=NOON + INSTANT)
    send(node, event("e1", 10))
    ledger.close_due_buckets(now=LATER + HOUR)
    assert (left(main), left(short)) == (3_591_000, 0)
    amend("e1", 1)
    assert (left(main), left(short)) == (3_600_000, 0)
    void("e1")
    assert (left(main), left(short)) == (3_600_000, 0)


def test_uncovered_goes_first_then_priced_then_buckets(node: Node, bare: Subscriber) -> None:
    bucket = give(bare, 10)
    payg(bare, cap=5)
    send(node, event("e1", 20))

    def standing() -> tuple[int, int, int]:
        total = CycleOverage.objects.get()
        return left(bucket), total.priced_mt, total.uncovered_mt

    assert standing() == (0, 5_000, 5_000)
    amend("e1", 16)
    assert standing() == (0, 5_000, 1_000)
    amend("e1", 12)
    assert standing() == (0, 2_000, 0)
    void("e1")
    assert standing() == (10_000, 0, 0)
    negative = Overage.objects.filter(mt__lt=0, priced=True)
    assert {one.fen_per_million for one in negative} == {400}


def test_overage_is_taken_back_at_the_price_it_was_booked_at(node: Node, bare: Subscriber) -> None:
    payg(bare, cap=100, fen=400)
    send(node, event("e1", 10))
    payg(bare, cap=100, fen=900)
    amend("e1", 15)
    amend("e1", 8)
    rows = Overage.objects.order_by("id").values_list("mt", "fen_per_million")
    assert list(rows) == [(10_000, 400), (5_000, 900), (-5_000, 900), (-2_000, 400)]


def test_more_is_charged_like_usage_of_the_event_s_time(node: Node, bare: Subscriber) -> None:
    ended = give(bare, 100, end=at("2026-11-24 12:30"))
    later = give(bare, 100, kind="pack", start=at("2026-11-24 12:30"))
    send(node, event("e1", 10))
    amend("e1", 30)  # an hour later, when the first bucket is over but not yet closed
    assert (left(ended), left(later)) == (70_000, 100_000)
    ledger.close_due_buckets(now=NOON + 3 * HOUR)
    amended = amend("e1", 40, now=NOON + 3 * HOUR)
    assert (left(later), amended.late) == (90_000, True)
    void("e1", now=NOON + 4 * HOUR)
    assert (left(ended), left(later)) == (0, 100_000)


def test_an_amendment_is_the_difference_and_the_event_stays(node: Node, month: Bucket) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 60},
    }
    send(node, event("e1", model="heavy", usage=usage))
    amended = corrections.amend(
        event_id=number_of("e1"), counts=Counts(40, 60, 12, 3), actor="clerk", reason="recount",
        key="k", now=LATER,
    )  # fmt: skip
    assert (amended.input_tokens, amended.cached_tokens) == (0, 0)
    assert (amended.output_tokens, amended.reasoning_tokens) == (2, 3)
    assert amended.mt == 2 * 40_000 + 3 * 20_000
    stored = UsageEvent.objects.get()
    assert (stored.output_tokens, stored.mt) == (10, 40 * 10_000 + 60_000 + 10 * 40_000)


def test_a_correction_is_a_batch_that_adds_up(node: Node, month: Bucket) -> None:
    send(node, event("e1", 10))
    amended = amend("e1", 4)
    batch = UsageBatch.objects.get(kind="correction")
    assert amended.batch_id == batch.pk and batch.node_id == node.pk
    assert (batch.received, batch.accepted) == (0, 0)
    assert (batch.accepted_mt, batch.debited_mt) == (-6_000, -6_000)


@pytest.mark.parametrize("verb", [void, partial(amend, tokens=4)], ids=["void", "amend"])
def test_a_repeat_of_a_key_gets_the_same_answer(
    node: Node, month: Bucket, verb: Callable[..., Amendment]
) -> None:
    send(node, event("e1", 10))
    first = verb("e1", key="k")
    assert verb("e1", key="k").pk == first.pk
    assert Amendment.objects.count() == 1


def test_a_key_names_one_correction(node: Node, month: Bucket, neighbour: Subscriber) -> None:
    send(node, event("e1", 10), event("e2", 10, subject="+8613900000002"))
    amend("e1", 4, key="k")
    for other in (
        partial(amend, "e1", 5, key="k"),
        partial(void, "e1", key="k"),
        partial(amend, "e2", 4, key="k"),
    ):
        with pytest.raises(corrections.KeyReused):
            other()
    amend("e1", 6, key="k2")
    assert amend("e1", 4, key="k").mt == -6_000  # what it answered then


def test_a_voided_event_is_not_amended_or_voided_again(node: Node, month: Bucket) -> None:
    send(node, event("e1", 10))
    void("e1")
    with pytest.raises(corrections.CorrectionRefused):
        amend("e1", 4)
    with pytest.raises(corrections.CorrectionRefused):
        void("e1", key="another")


def test_a_voided_event_sent_again_is_a_duplicate(node: Node, month: Bucket) -> None:
    send(node, event("e1", 10))
    void("e1")
    assert send(node, event("e1", 10)).tally.duplicate == 1
    assert send(node, event("e1", 11)).tally.conflict == 1
    assert left(month) == 1_000_000


def test_an_amendment_without_a_difference_is_refused(node: Node, month: Bucket) -> None:
    send(node, event("e1", 10))
    with pytest.raises(corrections.CorrectionRefused):
        amend("e1", 10)


def test_unknown_events_and_missing_reasons_are_refused(node: Node, month: Bucket) -> None:
    send(node, event("e1", 10))
    with pytest.raises(corrections.UnknownEvent):
        corrections.void(event_id=1, actor="clerk", reason="r", key="k", now=LATER)
    for reason, key in ((" ", "k"), ("r", " ")):
        with pytest.raises(corrections.CorrectionUnreadable):
            corrections.void(
                event_id=number_of("e1"), actor="clerk", reason=reason, key=key, now=LATER
            )
    with pytest.raises(corrections.CorrectionUnreadable):
        amend("e1", -1)


def test_a_void_opens_whom_the_event_had_blocked(node: Node, bare: Subscriber) -> None:
    give(bare, 10)
    send(node, event("e1", 10))
    assert BlockChange.objects.latest("id").blocked
    void("e1")
    assert not BlockChange.objects.latest("id").blocked
    amend_up = event("e2", 5)
    send(node, amend_up)
    amend("e2", 10)
    assert BlockChange.objects.latest("id").reason == "quota_exhausted"


def test_what_people_read_is_what_was_amended(node: Node, subscriber: Subscriber) -> None:
    send(node, event("e1", 10), event("e2", 20), event("e3", 40))
    void("e1")
    amend("e2", 25)

    def series(group_by: str) -> list[dict[str, Any]]:
        return reports.usage_series(
            subscriber_id=subscriber.pk, start=START, end=END, group_by=group_by
        )

    for group_by in ("day", "hour", "model"):
        (row,) = series(group_by)
        assert (row["input_tokens"], row["mt"], row["events"]) == (65, 65_000, 2)
    row = series("kind")[1]
    assert (row["key"], row["tokens"], row["mt"], row["events"]) == ("input", 65, 65_000, 2)
    events = reports.recent_events(subscriber_id=subscriber.pk, before=None, since=START, limit=10)
    shown = {one.event_id: (one.mt, one.voided) for one in events}  # type: ignore[attr-defined]
    assert shown == {"e1": (0, True), "e2": (25_000, False), "e3": (40_000, False)}


@pytest.mark.django_db(transaction=True)
def test_eight_voids_of_one_event_at_once_are_one(node: Node, month: Bucket) -> None:
    send(node, event("e1", 10))
    number = number_of("e1")

    def press(place: int) -> str:
        try:
            done = corrections.void(
                event_id=number, actor="clerk", reason="r", key=f"k{place}", now=LATER
            )
        except corrections.CorrectionRefused:
            return "refused"
        finally:
            connection.close()
        return done.kind

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(press, range(8)))
    assert answers == ["refused"] * 7 + ["void"]
    assert left(month) == 1_000_000


@pytest.mark.django_db(transaction=True)
def test_corrections_beside_usage_lose_nothing(node: Node, month: Bucket) -> None:
    send(node, *(event(f"e{place}", 10) for place in range(24)))
    numbers = dict(UsageEvent.objects.values_list("event_id", "id"))

    def work(place: int) -> None:
        try:
            if place % 3 == 0:
                send(node, event(f"new{place}", 3))
            elif place % 3 == 1:
                corrections.void(
                    event_id=numbers[f"e{place}"], actor="a", reason="r", key=f"v{place}",
                    now=LATER,
                )  # fmt: skip
            else:
                corrections.amend(
                    event_id=numbers[f"e{place}"], counts=Counts(15, 0, 0, 0), actor="a",
                    reason="r", key=f"a{place}", now=LATER,
                )  # fmt: skip
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(24)))
    assert left(month) == 1_000_000 - 240_000 - 8 * 3_000 + 8 * 10_000 - 8 * 5_000
