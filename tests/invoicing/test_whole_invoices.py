"""Invoices and lines that are inserted many at a time: one bad row among good ones is refused."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from django.db import IntegrityError, connection, transaction

from invoicing import billrun
from invoicing.models import Invoice, InvoiceLine
from usage.models import InferenceModel

from .conftest import DECEMBER, NOVEMBER, OCTOBER, Debtors, wait_for_one_who_waits

pytestmark = pytest.mark.django_db

INVOICES = """
    INSERT INTO invoicing_invoice
           (account_id, cycle, state, number, buyer_name, buyer_tax_number, seller_name,
            seller_tax_number, net_fen, vat_fen, gross_fen, prepaid_fen, issued_at, due_at)
    SELECT invoice.account_id, wanted.cycle::date, wanted.state, wanted.number, 'x', '', 'x', '',
           wanted.net_fen, 0, wanted.net_fen, 0, invoice.issued_at, invoice.due_at
      FROM (VALUES {rows}) AS wanted (cycle, state, number, net_fen)
     CROSS JOIN (SELECT * FROM invoicing_invoice ORDER BY id LIMIT 1) AS invoice
"""
LINES = """
    INSERT INTO invoicing_invoiceline
           (invoice_id, position, kind, name, name_en, msisdn, model_code, usage_cycle,
            quantity_mt, fen_per_million, tax_category, rate_bp, net_fen, vat_fen, gross_fen)
    SELECT invoice.id, wanted.position, 'overage', 'x', 'x', '', 'm', invoice.cycle, 1, 1, 'c', 0,
           wanted.net_fen, 0, wanted.net_fen
      FROM (VALUES {rows}) AS wanted (number, position, net_fen)
      JOIN {source} AS invoice ON invoice.number = wanted.number
"""
FIRST, SECOND = "26311000000000000098", "26311000000000000099"
NOVEMBERS = f"('{NOVEMBER}', 'final', '{FIRST}', 30)"
DECEMBERS = f"('{DECEMBER}', 'final', '{SECOND}', 7)"


@pytest.fixture
def invoice(
    rates: None, debtors: Debtors, model: InferenceModel, after_october: datetime
) -> Invoice:
    """A finalised one."""
    debtors.charge(debtors.account())
    billrun.bill_cycle(cycle=OCTOBER, now=after_october)
    return Invoice.objects.get()


def _insert_invoices(*rows: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(INVOICES.format(rows=", ".join(rows)))


def _insert_lines(*rows: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(LINES.format(rows=", ".join(rows), source="invoicing_invoice"))


def _insert_whole(invoices: list[str], lines: list[str]) -> None:
    """Both kinds of rows in one statement, as the bill run writes them."""
    born = INVOICES.format(rows=", ".join(invoices)) + "RETURNING id, number, cycle"
    added = LINES.format(rows=", ".join(lines), source="born")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"WITH born AS ({born}) {added}")


def _draft() -> None:
    _insert_invoices(f"('{NOVEMBER}', 'draft', '{FIRST}', 0)")


def test_finalised_invoices_may_be_written_with_their_lines_in_one_statement(
    invoice: Invoice,
) -> None:
    _insert_whole(
        [NOVEMBERS, DECEMBERS],
        [f"('{FIRST}', 1, 10)", f"('{FIRST}', 2, 20)", f"('{SECOND}', 1, 7)"],
    )
    assert list(Invoice.objects.get(number=FIRST).lines.values_list("position", flat=True)) == [
        1,
        2,
    ]


@pytest.mark.parametrize(
    "lines",
    [
        [f"('{FIRST}', 1, 30)", f"('{SECOND}', 1, 8)"],
        [f"('{FIRST}', 1, 30)", f"('{SECOND}', 1, 7)", f"('{SECOND}', 2, 1)"],
        [f"('{FIRST}', 1, 30)"],
    ],
    ids=["another sum", "a line too many", "no line"],
)
def test_one_that_is_not_the_sum_of_its_lines_is_refused_with_all_others(
    invoice: Invoice, lines: list[str]
) -> None:
    with pytest.raises(IntegrityError, match=f"{SECOND} is born finalised"):
        _insert_whole([NOVEMBERS, DECEMBERS], lines)
    assert Invoice.objects.get() == invoice


def test_an_invoice_born_finalised_among_drafts_is_refused(invoice: Invoice) -> None:
    with pytest.raises(IntegrityError, match=f"{SECOND} is born finalised"):
        _insert_invoices(f"('{NOVEMBER}', 'draft', '{FIRST}', 0)", DECEMBERS)
    assert Invoice.objects.get() == invoice


def test_a_zero_line_cannot_follow_an_invoice_that_was_born_whole(invoice: Invoice) -> None:
    _insert_whole([NOVEMBERS], [f"('{FIRST}', 1, 30)"])
    with pytest.raises(IntegrityError, match="finalised"):
        _insert_lines(f"('{FIRST}', 2, 0)")


def test_a_line_for_a_finalised_invoice_among_lines_of_drafts_is_refused(invoice: Invoice) -> None:
    _draft()
    with pytest.raises(IntegrityError, match="finalised; its lines are frozen"):
        _insert_lines(
            f"('{FIRST}', 1, 1)",
            f"('{FIRST}', 2, 1)",
            f"('{invoice.number}', 9, 0)",
            f"('{FIRST}', 3, 1)",
        )
    assert not Invoice.objects.get(number=FIRST).lines.exists()


def test_lines_may_be_added_to_a_draft_many_at_a_time(invoice: Invoice) -> None:
    _draft()
    _insert_lines(f"('{FIRST}', 1, 10)", f"('{FIRST}', 2, 10)")
    _insert_lines(f"('{FIRST}', 3, 10)")
    Invoice.objects.filter(number=FIRST).update(state="final", net_fen=30, gross_fen=30)


def test_a_line_without_its_invoice_is_refused_at_once(invoice: Invoice) -> None:
    line = invoice.lines.get()
    line.pk, line.charge, line.kind, line.quantity_mt = None, None, InvoiceLine.Kind.OVERAGE, 1
    line.invoice_id = invoice.pk + 1
    with pytest.raises(IntegrityError, match="there is no invoice"), transaction.atomic():
        line.save(force_insert=True)


@pytest.mark.django_db(transaction=True)
def test_a_line_that_comes_while_its_draft_is_finalised_is_refused(invoice: Invoice) -> None:
    _draft()
    _insert_lines(f"('{FIRST}', 1, 30)")

    def add() -> None:
        try:
            _insert_lines(f"('{FIRST}', 2, 0)")
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Invoice.objects.filter(number=FIRST).update(state="final", net_fen=30, gross_fen=30)
            adding = pool.submit(add)
            wait_for_one_who_waits()
        with pytest.raises(IntegrityError, match="finalised"):
            adding.result()


@pytest.mark.django_db(transaction=True)
def test_a_line_for_an_invoice_that_is_not_committed_yet_is_refused(invoice: Invoice) -> None:
    def add(invoice_id: int) -> None:
        try:
            InvoiceLine.objects.create(
                invoice_id=invoice_id,
                position=2,
                kind="overage",
                name="x",
                name_en="x",
                usage_cycle=NOVEMBER,
                quantity_mt=1,
                fen_per_million=1,
                tax_category="c",
                rate_bp=0,
                net_fen=0,
                vat_fen=0,
                gross_fen=0,
            )
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        _insert_whole([NOVEMBERS], [f"('{FIRST}', 1, 30)"])
        adding = pool.submit(add, Invoice.objects.get(number=FIRST).pk)
        with pytest.raises(IntegrityError, match="there is no invoice"):
            adding.result()
    assert Invoice.objects.get(number=FIRST).lines.count() == 1
