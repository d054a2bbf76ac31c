"""The database refuses to change, delete or extend what was finalised, whoever asks."""

from datetime import datetime

import pytest
from django.db import IntegrityError, connection, transaction

from invoicing import billrun
from invoicing.models import Invoice, InvoiceLine
from usage.models import InferenceModel, Overage

from .conftest import NOVEMBER, OCTOBER, Debtors

pytestmark = pytest.mark.django_db

ATTACKS = [
    "UPDATE invoicing_invoice SET buyer_name = 'another'",
    "UPDATE invoicing_invoice SET state = 'draft'",
    "UPDATE invoicing_invoice SET number = '26311999999999999999'",
    "UPDATE invoicing_invoice SET net_fen = net_fen + 1, gross_fen = gross_fen + 1",
    "DELETE FROM invoicing_invoice",
    "UPDATE invoicing_invoiceline SET name = 'another'",
    "UPDATE invoicing_invoiceline SET net_fen = net_fen + 1, gross_fen = gross_fen + 1",
    "DELETE FROM invoicing_invoiceline",
    """INSERT INTO invoicing_invoiceline
              (invoice_id, position, kind, name, name_en, msisdn, model_code, usage_cycle,
               quantity_mt, fen_per_million, tax_category, rate_bp, net_fen, vat_fen, gross_fen)
       SELECT id, 99, 'overage', 'x', 'x', '', 'm', cycle, 1, 1, 'c', 0, 0, 0, 0
         FROM invoicing_invoice""",
]


@pytest.fixture
def invoice(
    rates: None, debtors: Debtors, model: InferenceModel, after_october: datetime
) -> Invoice:
    """With a charge and an overage line."""
    subscriber = debtors.account()
    debtors.charge(subscriber)
    debtors.overage(subscriber, 10**9, model=model)
    billrun.bill_cycle(cycle=OCTOBER, now=after_october)
    return Invoice.objects.get()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_finalised_invoice_refuses_every_change(invoice: Invoice, attack: str) -> None:
    refused = pytest.raises(IntegrityError, match="finalised")
    with refused, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(attack)
    invoice.refresh_from_db()
    assert (invoice.state, invoice.gross_fen) == ("final", 1_390)


def _draft(invoice: Invoice) -> Invoice:
    copy = Invoice.objects.get(pk=invoice.pk)
    copy.pk, copy.cycle, copy.number = None, NOVEMBER, "26311000000000000099"
    copy.state = Invoice.State.DRAFT
    copy.save(force_insert=True)
    return copy


def test_a_line_cannot_move_from_a_draft_into_a_finalised_invoice(invoice: Invoice) -> None:
    draft = _draft(invoice)
    line = InvoiceLine.objects.get(invoice=invoice, kind="overage")
    line.pk, line.invoice, line.position = None, draft, 7
    line.save(force_insert=True)
    with pytest.raises(IntegrityError, match="frozen"), transaction.atomic():
        InvoiceLine.objects.filter(pk=line.pk).update(invoice=invoice)


def test_an_invoice_that_is_not_the_sum_of_its_lines_cannot_be_finalised(invoice: Invoice) -> None:
    draft = _draft(invoice)
    with pytest.raises(IntegrityError, match="sum of its lines"), transaction.atomic():
        Invoice.objects.filter(pk=draft.pk).update(state=Invoice.State.FINAL)


def test_an_invoice_cannot_be_born_finalised(invoice: Invoice) -> None:
    invoice.pk, invoice.cycle, invoice.number = None, NOVEMBER, "26311000000000000098"
    with pytest.raises(IntegrityError, match="draft"), transaction.atomic():
        invoice.save(force_insert=True)


def test_an_account_has_one_invoice_a_cycle(invoice: Invoice) -> None:
    invoice.pk, invoice.number = None, "26311000000000000097"
    invoice.state = Invoice.State.DRAFT
    with pytest.raises(IntegrityError, match="invoice_once_per_cycle"), transaction.atomic():
        invoice.save(force_insert=True)


@pytest.mark.parametrize("line", [None, 999_999])
def test_billed_overage_stays_on_its_line(invoice: Invoice, line: int | None) -> None:
    with pytest.raises(IntegrityError, match="bills it already"), transaction.atomic():
        Overage.objects.update(invoice_line_id=line)
