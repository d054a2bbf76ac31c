"""Charges: booked once per key, never changed, never removed."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from accounts.models import Subscriber
from plans import charging
from plans.models import Charge
from plans.refusals import KeyReused
from usage.periods import cycle_end, cycle_of

from .conftest import NOON, close_connection

pytestmark = pytest.mark.django_db


def book(subscriber: Subscriber, **changes: Any) -> tuple[Charge, bool]:
    content: dict[str, Any] = {
        "account_id": subscriber.account_id,
        "subscriber_id": subscriber.pk,
        "kind": "fee",
        "name": "词元",
        "name_en": "Tokens",
        "amount_fen": 990,
        "tax_category": "token_package",
        "cycle": cycle_of(NOON),
        "period_start": NOON,
        "period_end": cycle_end(cycle_of(NOON)),
        "key": "fee:1",
        "now": NOON,
    }
    return charging.book(**content | changes)


def test_a_repeat_returns_the_first_charge(subscriber: Subscriber) -> None:
    first, created = book(subscriber)
    assert created
    assert book(subscriber) == (first, False)


def test_a_key_that_stands_for_other_content_is_refused(subscriber: Subscriber) -> None:
    book(subscriber)
    with pytest.raises(KeyReused):
        book(subscriber, amount_fen=991)


@pytest.mark.parametrize(("kind", "amount_fen"), [("fee", -1), ("credit", 1), ("credit", 0)])
def test_the_sign_fits_the_kind(subscriber: Subscriber, kind: str, amount_fen: int) -> None:
    with pytest.raises(IntegrityError, match="charge_sign_fits_kind"), transaction.atomic():
        book(subscriber, kind=kind, amount_fen=amount_fen)


def test_the_database_refuses_to_change_or_remove_a_charge(subscriber: Subscriber) -> None:
    book(subscriber)
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        Charge.objects.update(amount_fen=1)
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        Charge.objects.all().delete()


@pytest.mark.django_db(transaction=True)
def test_the_same_charge_from_four_threads_is_booked_once(subscriber: Subscriber) -> None:
    def run(_: int) -> bool:
        try:
            return book(subscriber)[1]
        finally:
            close_connection()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(run, range(4))) == [False] * 3 + [True]
