"""Many grants in one go move balances exactly as single ones do."""

from dataclasses import replace

import pytest
from django.db import transaction

from accounts.models import Subscriber
from usage.granting import grant_many
from usage.ledger import Grant, GrantReused
from usage.models import Bucket, ChargingProfile, LedgerEntry
from usage.proof import verify

from .conftest import NOON, at

pytestmark = pytest.mark.django_db


def wanted(subscriber: Subscriber, key: str) -> Grant:
    return Grant(
        subscriber_id=subscriber.pk,
        kind=Bucket.Kind.PLAN,
        name="词元",
        name_en="Tokens",
        amount_mt=5_000,
        valid_from=NOON,
        valid_until=at("2026-12-01 00:00"),
        key=key,
        priority=20,
        model_ids=(7, 9),
    )


def test_each_grant_opens_a_bucket_with_its_entry(
    subscriber: Subscriber, neighbour: Subscriber
) -> None:
    grants = [wanted(neighbour, "b"), wanted(subscriber, "a"), wanted(subscriber, "c")]
    assert grant_many(grants=grants, now=NOON) == 3
    bucket = Bucket.objects.get(key="a")
    assert (bucket.granted_mt, bucket.remaining_mt, bucket.reserved_mt) == (5_000, 5_000, 0)
    assert (bucket.valid_from, bucket.valid_until) == (NOON, at("2026-12-01 00:00"))
    assert (bucket.close_at, bucket.model_ids) == (at("2026-12-01 01:00"), [7, 9])
    assert list(LedgerEntry.objects.values_list("kind", flat=True)) == ["grant"] * 3
    assert verify() == []


def test_a_repeat_opens_nothing_and_only_what_is_new_is_granted(subscriber: Subscriber) -> None:
    grant_many(grants=[wanted(subscriber, "a")], now=NOON)
    both = [wanted(subscriber, "a"), wanted(subscriber, "b")]
    assert grant_many(grants=both, now=NOON) == 1
    assert grant_many(grants=both, now=NOON) == 0
    assert grant_many(grants=[], now=NOON) == 0
    assert LedgerEntry.objects.count() == 2


def test_a_key_that_was_granted_with_another_amount_is_refused_whole(
    subscriber: Subscriber,
) -> None:
    grant_many(grants=[wanted(subscriber, "a")], now=NOON)
    other = [replace(wanted(subscriber, "a"), amount_mt=1), wanted(subscriber, "b")]
    with pytest.raises(GrantReused), transaction.atomic():
        grant_many(grants=other, now=NOON)
    assert Bucket.objects.count() == 1


def test_who_was_exhausted_is_open_again(subscriber: Subscriber) -> None:
    ChargingProfile.objects.update(blocked="quota_exhausted")
    grants = [replace(wanted(subscriber, "a"), model_ids=())]
    grant_many(grants=grants, now=NOON)
    assert ChargingProfile.objects.get().blocked == ""
