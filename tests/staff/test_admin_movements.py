"""Movements of buckets by buttons: who may, what moves, and what a refusal says."""

from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from accounts.models import Subscriber
from usage import proof
from usage.models import Bucket, LedgerEntry, Movement

from .conftest import Carrier, member

ENGLISH = {"accept-language": "en"}
VERBS = ("adjust", "transfer", "void")


def button(name: str, *args: object) -> str:
    return reverse(f"admin:{name}", args=args)


def press(client: Client, address: str, **fields: object) -> Any:
    return client.post(address, {"key": uuid4(), **fields}, follow=True, headers=ENGLISH)


@pytest.fixture
def bucket(carrier: Carrier) -> Bucket:
    """500 granted, 500 used; with what an amendment gave back it holds 100, or what was held."""
    return Bucket.objects.get(key="test:1")


@pytest.fixture
def given(carrier: Carrier, support: Client) -> Bucket:
    """A promotional bucket of 1,000 tokens, as support gives it."""
    page = press(
        support,
        button("accounts_subscriber_give_tokens", carrier.subscriber.pk),
        name="补偿",
        name_en="Sorry",
        amount_mt="1000",
        last_day="2026-10-31",
        reason="outage",
    )
    assert "Granted: 1,000 standard tokens." in page.text
    return Bucket.objects.get(kind="promotion")


def test_support_gives_a_promotional_bucket_once_a_form(
    carrier: Carrier, support: Client, given: Bucket
) -> None:
    assert given.remaining_mt == 1_000_000
    assert given.valid_until.isoformat() == "2026-10-31T16:00:00+00:00"
    entry = LedgerEntry.objects.get(bucket_id=given.pk)
    assert (entry.kind, entry.actor, entry.reason) == ("grant", "support", "outage")
    address = button("accounts_subscriber_give_tokens", carrier.subscriber.pk)
    form = {"name": "a", "amount_mt": "1", "last_day": "2026-10-31", "reason": "x", "key": uuid4()}
    for said in ("Granted", "done before"):
        assert said in press(support, address, **form).text
    assert Bucket.objects.filter(kind="promotion").count() == 2


def test_a_gift_that_ends_before_it_begins_is_told_on_the_form(
    carrier: Carrier, support: Client
) -> None:
    address = button("accounts_subscriber_give_tokens", carrier.subscriber.pk)
    form = {"name": "a", "amount_mt": "1", "reason": "x"}
    page = press(support, address, last_day="2026-10-04", **form)
    assert "choose today or a later one" in page.text
    assert "Granted" in press(support, address, last_day="2026-10-05", **form).text


def test_a_gift_without_a_sensible_end_is_told_on_the_form(
    carrier: Carrier, support: Client
) -> None:
    address = button("accounts_subscriber_give_tokens", carrier.subscriber.pk)
    for last_day in ("9999-12-31", "0001-01-01"):
        page = press(support, address, last_day=last_day, name="a", amount_mt="1", reason="x")
        assert "This day is too far away." in page.text
    assert not Bucket.objects.filter(kind="promotion").exists()


def test_an_absurd_amount_is_told_on_the_form(support: Client, given: Bucket) -> None:
    address = button("usage_bucket_adjust", given.pk)
    page = press(support, address, amount_mt="1000000000000.001", reason="x")
    assert "less than or equal to 1000000000000" in page.text
    page = press(support, address, amount_mt="1000000000000", reason="x")
    assert "The bucket would be too large" in page.text
    given.refresh_from_db()
    assert given.remaining_mt == 1_000_000


def test_support_adjusts_a_bucket_both_ways(support: Client, given: Bucket) -> None:
    address = button("usage_bucket_adjust", given.pk)
    assert "Left: 1,000 standard tokens" in support.get(address, headers=ENGLISH).text
    page = press(support, address, amount_mt="0.5", reason="more")
    assert "1,000 standard tokens were left before, 1,000.5 are left now" in page.text
    press(support, address, amount_mt="-200", reason="less")
    given.refresh_from_db()
    assert (given.remaining_mt, given.adjusted_mt) == (800_500, -199_500)
    last = Movement.objects.latest("id")
    assert (last.actor, last.reason, last.amount_mt) == ("support", "less", -200_000)
    assert LogEntry.objects.filter(user__username="support", object_id=given.pk).exists()
    assert proof.verify() == []


def test_a_form_sent_twice_moves_once(support: Client, given: Bucket) -> None:
    address = button("usage_bucket_adjust", given.pk)
    form = {"amount_mt": "5", "reason": "x", "key": uuid4()}
    press(support, address, **form)
    assert "nothing moved again" in press(support, address, **form).text
    page = press(support, address, **(form | {"amount_mt": "6"}))
    assert "open it again" in page.text
    given.refresh_from_db()
    assert given.remaining_mt == 1_005_000


def test_a_refusal_says_what_is_free_and_keeps_what_was_typed(
    support: Client, given: Bucket
) -> None:
    page = press(
        support, button("usage_bucket_adjust", given.pk), amount_mt="-1001", reason="too much"
    )
    assert page.context["form"].non_field_errors() == [
        "The bucket has 1,000 standard tokens free: move some, and no more than that."
    ]
    assert 'value="-1001"' in page.text
    assert 'value="too much"' in page.text
    given.refresh_from_db()
    assert given.remaining_mt == 1_000_000


def test_support_transfers_to_a_number(carrier: Carrier, support: Client, given: Bucket) -> None:
    address = button("usage_bucket_transfer", given.pk)
    for whom, said in (("13900000099", "Nobody has this number"), ("13900000001", "theirs")):
        page = press(support, address, to_subscriber=whom, amount_mt="300", reason="family")
        assert said in page.text
        assert f'value="{whom}"' in page.text
    press(support, address, to_subscriber="139 0000 0002", amount_mt="300", reason="family")
    got = Bucket.objects.get(subscriber=carrier.newcomer)
    assert (got.remaining_mt, got.kind, got.valid_until) == (
        300_000,
        "promotion",
        given.valid_until,
    )
    for row in (given, got):
        assert "family" in support.get(button("usage_bucket_change", row.pk)).text
    assert proof.verify() == []


def test_support_voids_a_bucket_and_is_told_what_then(support: Client, given: Bucket) -> None:
    page = press(support, button("usage_bucket_void", given.pk), reason="mistake")
    assert "1,000 standard tokens were left before, 0 are left now" in page.text
    for verb in VERBS:
        assert button(f"usage_bucket_{verb}", given.pk) not in page.text
    page = press(
        support, button("usage_bucket_adjust", given.pk), amount_mt="1", reason="once more"
    )
    assert "grant a new one" in page.text


def test_what_a_session_holds_cannot_be_voided(support: Client, bucket: Bucket) -> None:
    assert bucket.reserved_mt > 0
    page = press(support, button("usage_bucket_void", bucket.pk), reason="mistake")
    assert "void it when they have ended" in page.text


def test_a_pool_s_bucket_is_adjusted_and_not_transferred(carrier: Carrier, support: Client) -> None:
    shared = Bucket.objects.get(pool=carrier.pool)
    page = support.get(button("usage_bucket_change", shared.pk))
    assert button("usage_bucket_adjust", shared.pk) in page.text
    assert button("usage_bucket_transfer", shared.pk) not in page.text
    press(support, button("usage_bucket_adjust", shared.pk), amount_mt="-1000", reason="x")
    shared.refresh_from_db()
    assert shared.remaining_mt == 0


@pytest.mark.parametrize("role", ["auditor", "finance", "catalogue manager"])
def test_others_move_nothing(carrier: Carrier, given: Bucket, role: str) -> None:
    client = member(role)
    addresses = [button(f"usage_bucket_{verb}", given.pk) for verb in VERBS]
    addresses.append(button("accounts_subscriber_give_tokens", carrier.subscriber.pk))
    movements = Movement.objects.count()
    for address in addresses:
        fields = {"amount_mt": "1", "reason": "x", "to_subscriber": "13900000002"}
        assert press(client, address, **fields).status_code == 403
        assert client.get(address).status_code == 403
    given.refresh_from_db()
    assert given.remaining_mt == 1_000_000
    assert Movement.objects.count() == movements


def test_the_auditor_sees_movements_and_no_button(
    carrier: Carrier, auditor: Client, given: Bucket
) -> None:
    assert auditor.get(button("usage_movement_changelist")).status_code == 200
    page = auditor.get(button("usage_bucket_change", given.pk))
    assert page.status_code == 200
    assert not [verb for verb in VERBS if button(f"usage_bucket_{verb}", given.pk) in page.text]


def test_nothing_is_given_to_whoever_is_gone(carrier: Carrier, chief: Client) -> None:
    Subscriber.objects.filter(pk=carrier.newcomer.pk).update(state="terminated")
    page = chief.get(button("accounts_subscriber_change", carrier.newcomer.pk))
    assert button("accounts_subscriber_give_tokens", carrier.newcomer.pk) not in page.text
