"""Adjust, void and transfer: once per key, with a reason, of what no session holds."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from accounts import keys
from accounts.models import Account, Subscriber
from usage import ledger, movements, proof
from usage.ledger import BucketRefused
from usage.models import Bucket, ChargingProfile, LedgerEntry, Movement, Node
from usage.movements import KeyOrReasonMissing, MovementKeyReused

from .conftest import END, HOUR, NOON, SECOND, client_of, event, give, left, make_subscriber, send
from .test_database_rules import sql

WHY: dict[str, Any] = {"actor": "clerk", "reason": "goodwill", "now": NOON}


def adjust(bucket: Bucket, mt: int, key: str = "") -> tuple[Movement, bool]:
    return movements.adjust(bucket_id=bucket.pk, amount_mt=mt, key=key or f"adjust {mt}", **WHY)


def void(bucket: Bucket, key: str = "void") -> tuple[Movement, bool]:
    return movements.void_bucket(bucket_id=bucket.pk, key=key, **WHY)


def transfer(
    bucket: Bucket, to: Subscriber, tokens: int, key: str, **more: Any
) -> tuple[Movement, bool]:
    return movements.transfer(
        bucket_id=bucket.pk, to_subscriber_id=to.pk, amount_mt=tokens * 1000, key=key,
        **WHY | more,
    )  # fmt: skip


# --- adjust


def test_an_adjustment_gives_and_takes_within_what_is_free(month: Bucket) -> None:
    assert adjust(month, 500)[0].after_mt == 1_000_500
    assert adjust(month, -1_000_500)[0].after_mt == 0
    for mt in (-1, 0):
        with pytest.raises(BucketRefused):
            adjust(month, mt)
    rows = LedgerEntry.objects.filter(kind="adjustment").order_by("id")
    assert [(one.amount_mt, one.actor, one.reason) for one in rows] == [
        (500, "clerk", "goodwill"),
        (-1_000_500, "clerk", "goodwill"),
    ]
    assert proof.verify() == []


def test_an_adjustment_needs_a_reason_a_key_and_an_open_bucket(month: Bucket) -> None:
    named: dict[str, Any] = {"bucket_id": month.pk, "amount_mt": 1, "key": "k"} | WHY
    for change in ({"reason": " "}, {"key": ""}, {"key": "k" * 101}):
        with pytest.raises(KeyOrReasonMissing):
            movements.adjust(**named | change)
    ledger.close_due_buckets(now=END + HOUR)
    for bucket_id in (month.pk, month.pk + 1000):
        with pytest.raises(BucketRefused):
            movements.adjust(bucket_id=bucket_id, amount_mt=1, key="k", **WHY)
    assert not Movement.objects.exists()


def test_what_a_session_holds_is_not_moved(month: Bucket, neighbour: Subscriber) -> None:
    sql("UPDATE usage_bucket SET reserved_mt = 400000 WHERE id = %(id)s", id=month.pk)
    with pytest.raises(BucketRefused):
        adjust(month, -600_001)
    with pytest.raises(BucketRefused):
        transfer(month, neighbour, 601, "t")
    with pytest.raises(BucketRefused, match="Sessions hold"):
        void(month)
    adjust(month, -600_000)
    assert left(month) == 400_000


def test_a_repeat_moves_nothing_and_another_content_is_refused(
    month: Bucket, neighbour: Subscriber
) -> None:
    first, new = adjust(month, 500, "k")
    again, repeated = adjust(month, 500, "k")
    assert (new, repeated, again.pk) == (True, False, first.pk)
    other = Bucket.objects.exclude(pk=month.pk).get()
    attacks: list[Callable[[], object]] = [
        lambda: adjust(month, 501, "k"),
        lambda: adjust(other, 500, "k"),
        lambda: void(month, "k"),
        lambda: transfer(month, neighbour, 1, "k"),
    ]
    for attack in attacks:
        with pytest.raises(MovementKeyReused):
            attack()
    assert left(month) == 1_000_500
    assert Movement.objects.count() == 1


# --- void


def test_a_void_bucket_pays_no_more(node: Node, month: Bucket) -> None:
    """life-02 by the verb: half used, voided, the rest is beyond and not late."""
    send(node, event("e1", 500, at=NOON - SECOND), now=NOON - SECOND)
    movement, _new = void(month)
    assert (movement.amount_mt, movement.before_mt, movement.after_mt) == (-500_000, 500_000, 0)
    late = send(node, event("e2", 50, at=NOON + SECOND), now=NOON + SECOND)
    assert (late.tally.debited_mt, late.tally.uncovered_mt) == (0, 50_000)
    assert void(month) == (movement, False)
    with pytest.raises(BucketRefused, match="void"):
        adjust(month, 1)
    assert ChargingProfile.objects.get().blocked == "quota_exhausted"
    assert proof.verify() == []


# --- transfer


def test_three_transfers_leave_three_records(bare: Subscriber, account: Account) -> None:
    """BAL-09."""
    other = make_subscriber(account, "+8613900000002")
    src, dst = give(bare, 10), give(other, 10)
    transfer(src, other, 4, "1")
    transfer(src, other, 2, "2")
    third, _new = transfer(src, other, 3, "3", into_new_bucket=True)
    assert (left(src), left(dst)) == (1000, 16_000)
    rows = list(Movement.objects.order_by("id"))
    assert [(one.before_mt, one.after_mt) for one in rows] == [
        (10_000, 6000), (6000, 4000), (4000, 1000),
    ]  # fmt: skip
    assert [(one.other_before_mt, one.other_after_mt) for one in rows] == [
        (10_000, 14_000), (14_000, 16_000), (0, 3000),
    ]  # fmt: skip
    assert third.other_bucket is not None
    new = third.other_bucket
    assert left(new) == 3000
    assert (new.subscriber_id, new.kind, new.valid_until) == (other.pk, "plan", END)
    assert proof.verify() == []


def test_tokens_keep_their_end_models_and_hours(bare: Subscriber, account: Account) -> None:
    other = make_subscriber(account, "+8613900000002")
    give(other, 10)
    src = give(bare, 10, model_ids=[5], minute_from=1320, minute_until=480)
    moved = transfer(src, other, 4, "t")[0].other_bucket
    assert moved is not None
    assert (moved.model_ids, moved.minute_from, moved.minute_until) == ([5], 1320, 480)
    assert moved.valid_from == NOON


def test_tokens_of_the_future_do_not_begin_earlier_with_somebody_else(
    bare: Subscriber, account: Account
) -> None:
    other = make_subscriber(account, "+8613900000002")
    begun = give(other, 10)
    src = give(bare, 10, start=NOON + HOUR)
    moved = transfer(src, other, 4, "t")[0].other_bucket
    assert moved is not None
    assert (moved.valid_from, left(begun)) == (NOON + HOUR, 10_000)
    assert transfer(src, other, 4, "u")[0].other_bucket == moved
    after = transfer(src, other, 1, "v", now=NOON + HOUR)[0].other_bucket
    assert after == begun


def test_a_transfer_is_refused_whole(month: Bucket, subscriber: Subscriber) -> None:
    other = make_subscriber(subscriber.account, "+8613900000002")
    for tokens in (0, -1, 1001):
        with pytest.raises(BucketRefused):
            transfer(month, other, tokens, "t")
    with pytest.raises(BucketRefused):
        transfer(month, subscriber, 1, "t")
    with pytest.raises(BucketRefused, match="past its end"):
        transfer(month, other, 1, "t", now=END)
    ChargingProfile.objects.filter(subscriber=other).update(state="terminated")
    with pytest.raises(BucketRefused, match="terminated"):
        transfer(month, other, 1, "t")
    assert (left(month), Movement.objects.count(), Bucket.objects.count()) == (1_000_000, 0, 1)


def test_a_transfer_blocks_the_giver_and_opens_the_taker(
    month: Bucket, subscriber: Subscriber
) -> None:
    other = make_subscriber(subscriber.account, "+8613900000002")
    ChargingProfile.objects.filter(subscriber=other).update(blocked="quota_exhausted")
    transfer(month, other, 1000, "t")
    assert ChargingProfile.objects.get(subscriber=subscriber).blocked == "quota_exhausted"
    assert ChargingProfile.objects.get(subscriber=other).blocked == ""


@pytest.mark.django_db(transaction=True)
def test_transfers_crosswise_and_repeated_at_once_move_each_key_once(
    bare: Subscriber, account: Account
) -> None:
    other = make_subscriber(account, "+8613900000002")
    ends = [(give(bare, 100), other), (give(other, 100), bare)]

    def move(number: int) -> bool:
        try:
            bucket, to = ends[number % 2]
            return transfer(bucket, to, 5, f"key {number % 8}")[1]
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(move, range(32))) == [False] * 24 + [True] * 8
    assert (left(ends[0][0]), left(ends[1][0])) == (100_000, 100_000)
    assert Movement.objects.count() == 8
    assert proof.verify() == []


# --- API


@pytest.fixture
def clerk(db: None) -> Iterator[APIClient]:
    _key, token = keys.issue_key(kind="staff", scopes=["adjustments:write"], name="crm", now=NOON)
    yield client_of(token)


def test_the_api_adjusts_voids_and_transfers_once(
    clerk: APIClient, month: Bucket, neighbour: Subscriber, clock_at_noon: object
) -> None:
    def post(path: str, key: str, body: dict[str, Any]) -> Any:
        return clerk.post(
            f"/api/v1/{path}", {"reason": "r"} | body, format="json",
            headers={"idempotency-key": key},
        )  # fmt: skip

    body = {"bucket": month.pk, "tokens": 5}
    first, again = post("adjustments", "a", body), post("adjustments", "a", body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["after_mt"] == 1_005_000
    assert post("adjustments", "a", {"bucket": month.pk, "mt": 5}).status_code == 409
    assert post("adjustments", "b", {"bucket": month.pk}).status_code == 400
    assert post("adjustments", "b", {"bucket": 1, "void": 1, "mt": 1}).status_code == 400
    assert post("adjustments", "", body).json()["code"] == "key_or_reason_missing"
    moved = post("transfers", "t", {"bucket": month.pk, "to_subscriber": neighbour.pk, "tokens": 5})
    assert (moved.status_code, moved.json()["other_after_mt"]) == (201, 1_005_000)
    assert post("adjustments", "v", {"void": month.pk, "mt": -5}).status_code == 400
    voided = post("adjustments", "v", {"void": month.pk})
    assert (voided.status_code, voided.json()["amount_mt"]) == (201, -1_000_000)


def test_the_api_wants_the_scope(month: Bucket) -> None:
    _key, token = keys.issue_key(kind="staff", scopes=["accounts:write"], name="crm", now=NOON)
    answer = client_of(token).post("/api/v1/adjustments", {})
    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_scope")
