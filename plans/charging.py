"""Charges: what is owed and waits for the invoice of its cycle. Append-only."""

from collections.abc import Sequence
from datetime import date, datetime

from django.db import transaction

from .models import Charge
from .refusals import KeyReused


@transaction.atomic
def book(
    *,
    account_id: int,
    subscriber_id: int,
    kind: str,
    name: str,
    name_en: str,
    amount_fen: int,
    tax_category: str,
    cycle: date,
    period_start: datetime,
    period_end: datetime,
    key: str,
    now: datetime,
    version_id: int | None = None,
    order_id: int | None = None,
) -> tuple[Charge, bool]:
    """Book a charge once per key; a repeat returns the first one and False.

    `amount_fen` includes tax and is negative for a credit only; `cycle` is the first day of the
    billing-zone month on whose invoice it goes. KeyReused when the key stands for other content.
    """
    content = {
        "account_id": account_id,
        "subscriber_id": subscriber_id,
        "kind": kind,
        "amount_fen": amount_fen,
        "tax_category": tax_category,
        "cycle": cycle,
        "period_start": period_start,
        "period_end": period_end,
        "version_id": version_id,
        "order_id": order_id,
    }
    rest = {"name": name, "name_en": name_en, "created_at": now}
    charge, created = Charge.objects.get_or_create(key=key, defaults=content | rest)
    if not created and any(getattr(charge, field) != value for field, value in content.items()):
        raise KeyReused(f"{key} was already booked with other content; use another key")
    return charge, created


def book_new(*, charges: Sequence[Charge]) -> None:
    """Book many charges whose keys the caller's locks keep for itself, in its transaction.

    A key that is there already breaks that belief: the database refuses all of them.
    """
    Charge.objects.bulk_create(charges)
