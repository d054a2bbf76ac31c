"""No line without its invoice, whoever deletes, moves or renumbers, and whoever is faster."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from django.db import IntegrityError, connection, transaction

from invoicing.models import Invoice, InvoiceLine

from .conftest import OCTOBER, Debtors, wait_for_one_who_waits

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def draft(db: None, debtors: Debtors) -> Invoice:
    """An invoice that is still written."""
    return Invoice.objects.create(
        account_id=debtors.account().account_id,
        cycle=OCTOBER,
        number="26311000000000000001",
        buyer_name="张三",
        seller_name="x",
        seller_tax_number="x",
        net_fen=0,
        vat_fen=0,
        gross_fen=0,
        issued_at=NOW,
        due_at=NOW + timedelta(days=15),
    )


def _add_line(invoice: Invoice) -> InvoiceLine:
    return InvoiceLine.objects.create(
        invoice_id=invoice.pk,
        position=1,
        kind=InvoiceLine.Kind.OVERAGE,
        name="x",
        name_en="x",
        usage_cycle=OCTOBER,
        quantity_mt=1,
        fen_per_million=1,
        tax_category="c",
        rate_bp=0,
        net_fen=0,
        vat_fen=0,
        gross_fen=0,
    )


def _write(statement: str, invoice: Invoice) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, {"id": invoice.pk})


DELETE = "DELETE FROM invoicing_invoice WHERE id = %(id)s"


@pytest.mark.parametrize(
    ("attack", "refusal"),
    [
        (DELETE, "has lines"),
        ("UPDATE invoicing_invoice SET id = id + 1 WHERE id = %(id)s", "has lines"),
        (
            "UPDATE invoicing_invoiceline SET invoice_id = 0 WHERE invoice_id = %(id)s",
            "there is no invoice",
        ),
    ],
)
def test_a_line_keeps_its_invoice(draft: Invoice, attack: str, refusal: str) -> None:
    line = _add_line(draft)
    with pytest.raises(IntegrityError, match=refusal):
        _write(attack, draft)
    line.refresh_from_db()
    assert line.invoice == draft


def test_of_two_drafts_the_one_with_a_line_stays(draft: Invoice) -> None:
    _add_line(draft)
    other = Invoice.objects.get(pk=draft.pk)
    other.pk, other.number, other.cycle = None, "26311000000000000002", OCTOBER.replace(month=9)
    other.save(force_insert=True)
    with pytest.raises(IntegrityError, match=f"{draft.number} has lines"):
        _write("DELETE FROM invoicing_invoice WHERE %(id)s > 0", draft)
    _write(DELETE, other)
    assert Invoice.objects.get() == draft


def _elsewhere(write: Callable[[], object]) -> None:
    """In a thread of its own, so on another connection."""
    try:
        write()
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_a_line_that_comes_while_its_draft_is_deleted_is_refused(draft: Invoice) -> None:
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            _write(DELETE, draft)
            adding = pool.submit(_elsewhere, partial(_add_line, draft))
            wait_for_one_who_waits()
        with pytest.raises(IntegrityError, match="there is no invoice"):
            adding.result()
    assert not InvoiceLine.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_draft_to_which_a_line_is_being_added_cannot_be_deleted(draft: Invoice) -> None:
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            _add_line(draft)
            deleting = pool.submit(_elsewhere, partial(_write, DELETE, draft))
            wait_for_one_who_waits()
        with pytest.raises(IntegrityError, match="has lines"):
            deleting.result()
    assert InvoiceLine.objects.get().invoice == draft
