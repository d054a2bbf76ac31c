"""The invoice as a page: everything that must stand on it does, with or without a CJK font."""

from datetime import datetime

import pytest

from invoicing import billrun, paying, pdf
from invoicing.models import Invoice
from plans.models import Order
from usage.models import InferenceModel

from .conftest import OCTOBER, Debtors

pytestmark = pytest.mark.django_db


def test_the_page_names_amounts_in_yuan_and_tokens_exactly(
    rates: None, debtors: Debtors, model: InferenceModel, after_october: datetime
) -> None:
    subscriber = debtors.account()
    debtors.charge(subscriber)
    debtors.overage(subscriber, 12_345_678_901, model=model)
    billrun.bill_cycle(cycle=OCTOBER, now=after_october)
    page = pdf.content(invoice=Invoice.objects.get())
    assert (page["cycle"], page["issued"], page["due"]) == ("2026-10", "2026-11-01", "2026-11-16")
    fee, overage = page["lines"]
    assert (fee["net"], fee["vat"], fee["rate"]) == ("9.34", "0.56", "6%")
    assert (overage["quantity"], overage["price"], overage["gross"]) == (
        "12,345,678.901",
        "4.00",
        "49.38",
    )
    assert (page["gross"], page["capitals"]) == ("59.28", "伍拾玖元贰角捌分")


def test_the_same_invoice_gives_the_same_pdf(invoice: Invoice) -> None:
    first = pdf.render(invoice=invoice)
    assert first.startswith(b"%PDF-")
    assert first == pdf.render(invoice=invoice)


def test_a_name_with_typst_signs_is_only_a_name(
    rates: None, debtors: Debtors, after_october: datetime
) -> None:
    debtors.charge(debtors.account('#panic("x") $a$ *b* [c] "quoted" \\ <l> @r'))
    billrun.bill_cycle(cycle=OCTOBER, now=after_october)
    assert pdf.render(invoice=Invoice.objects.get()).startswith(b"%PDF-")


def test_a_pack_that_was_paid_at_once_is_not_asked_for_again(
    rates: None, pack_order: Order, debtors: Debtors, after_october: datetime
) -> None:
    paid_at = pack_order.created_at
    payment = paying.start_payment(
        account_id=pack_order.subscriber.account_id,
        order_id=pack_order.pk,
        method="offline",
        key="k",
        now=paid_at,
    )
    paying.confirm_offline(payment_id=payment.pk, actor="li", now=paid_at)
    debtors.charge(pack_order.subscriber)
    billrun.bill_cycle(cycle=OCTOBER, now=after_october)
    invoice = Invoice.objects.get()
    assert (invoice.gross_fen, invoice.prepaid_fen) == (1_090, 100)
    page = pdf.content(invoice=invoice)
    assert (page["prepaid"], page["payable"]) == ("1.00", "9.90")
    due = paying.start_payment(
        account_id=invoice.account_id,
        invoice_id=invoice.pk,
        method="offline",
        key="k2",
        now=after_october,
    )
    assert due.amount_fen == 990
