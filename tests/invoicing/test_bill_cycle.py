"""One invoice per account and cycle, with exact lines, VAT inside and totals to the fen."""

import re
from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext

from invoicing import billrun, money
from invoicing.models import BillRun, Invoice, InvoiceLine
from invoicing.refusals import CycleNotEnded, MissingTaxRate
from usage import periods
from usage.models import InferenceModel, Overage

from .conftest import DECEMBER, NOVEMBER, OCTOBER, Debtors

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _rates(rates: None) -> None:
    """Every test here bills with the shipped rates."""


def test_fees_packs_credits_and_overage_go_on_one_invoice_with_vat_inside(
    debtors: Debtors, model: InferenceModel, after_october: datetime
) -> None:
    subscriber = debtors.account()
    debtors.charge(subscriber, -100)
    debtors.charge(subscriber, 100, kind="pack")
    debtors.charge(subscriber, 990)
    for mt in (1_000_000_000, 250_000, 1_000_000):
        debtors.overage(subscriber, mt, model=model)

    result = billrun.bill_cycle(cycle=OCTOBER, now=after_october)

    invoice = Invoice.objects.get()
    lines = list(invoice.lines.order_by("position"))
    assert [line.kind for line in lines] == ["fee", "pack", "credit", "overage"]
    assert [line.position for line in lines] == [1, 2, 3, 4]
    assert [line.gross_fen for line in lines] == [990, 100, -100, 401]
    assert lines[3].quantity_mt == 1_001_250_000
    assert lines[3].fen_per_million == 400
    assert lines[3].model_code == "deepseek-v3.2"
    for line in lines:
        assert (line.net_fen, line.vat_fen) == money.vat_inside(line.gross_fen, 600)
    assert invoice.gross_fen == 1_391
    assert invoice.net_fen == sum(line.net_fen for line in lines)
    assert invoice.vat_fen == sum(line.vat_fen for line in lines)
    assert invoice.due_at == after_october + timedelta(days=15)
    assert (result.issued, result.invoices, result.gross_fen) == (1, 1, 1_391)
    assert BillRun.objects.get(cycle=OCTOBER).state == BillRun.State.DONE


def test_a_second_run_issues_nothing(
    debtors: Debtors, model: InferenceModel, after_october: datetime
) -> None:
    subscriber = debtors.account()
    debtors.charge(subscriber)
    debtors.overage(subscriber, 5_000_000, model=model)
    first = billrun.bill_cycle(cycle=OCTOBER, now=after_october)
    again = billrun.bill_cycle(cycle=OCTOBER, now=after_october + timedelta(hours=1))
    assert (first.issued, again.issued) == (1, 0)
    assert (first.invoices, first.gross_fen) == (again.invoices, again.gross_fen)
    assert InvoiceLine.objects.count() == 2


def test_hourly_runs_around_midnight_in_shanghai_and_utc_bill_once(debtors: Debtors) -> None:
    debtors.charge(debtors.account())
    end = periods.cycle_end(OCTOBER)
    issued = [
        billrun.bill_cycle(cycle=OCTOBER, now=end + timedelta(hours=hour)).issued
        for hour in range(30)
    ]
    assert issued == [1] + [0] * 29


def test_a_cycle_is_refused_until_its_last_instant_has_passed(debtors: Debtors) -> None:
    debtors.charge(debtors.account())
    end = periods.cycle_end(OCTOBER)
    for bill in (billrun.bill_cycle, billrun.preview):
        with pytest.raises(CycleNotEnded, match="2026-10 ends"):
            bill(cycle=OCTOBER, now=end - timedelta(microseconds=1))
    assert not BillRun.objects.exists()
    assert billrun.bill_cycle(cycle=OCTOBER, now=end).issued == 1


def test_the_next_cycle_stays_off_the_invoice(
    debtors: Debtors, model: InferenceModel, after_october: datetime
) -> None:
    subscriber = debtors.account()
    debtors.charge(subscriber, 990, cycle=NOVEMBER)
    debtors.overage(subscriber, 10**9, cycle=NOVEMBER, model=model)
    assert billrun.bill_cycle(cycle=OCTOBER, now=after_october).issued == 0
    assert not Overage.objects.filter(invoice_line_id__isnull=False).exists()


def test_what_comes_late_goes_on_the_next_invoice_under_its_own_cycle(
    debtors: Debtors, model: InferenceModel, after_october: datetime
) -> None:
    """late-01: the line names the month of use, and the first invoice stays as it was issued."""
    subscriber = debtors.account()
    debtors.charge(subscriber)
    billrun.bill_cycle(cycle=OCTOBER, now=after_october)
    debtors.charge(subscriber, 100, kind="pack")
    debtors.overage(subscriber, 10**9, model=model)
    debtors.overage(subscriber, 2 * 10**9, cycle=NOVEMBER, model=model)

    assert billrun.bill_cycle(cycle=OCTOBER, now=after_october).issued == 0
    billrun.bill_cycle(cycle=NOVEMBER, now=periods.cycle_end(NOVEMBER))

    november = Invoice.objects.get(cycle=NOVEMBER)
    lines = november.lines.order_by("position").values_list("usage_cycle", "gross_fen")
    assert list(lines) == [(OCTOBER, 100), (OCTOBER, 400), (NOVEMBER, 800)]


def test_overage_is_one_line_per_model_price_and_cycle(
    debtors: Debtors, model: InferenceModel, after_october: datetime
) -> None:
    other = InferenceModel.objects.create(code="glm-5", name="GLM-5")
    subscriber = debtors.account()
    for used, price in [(model, 400), (model, 400), (model, 300), (other, 400)]:
        debtors.overage(subscriber, 1_250_000, model=used, fen_per_million=price)
    debtors.overage(subscriber, 7, model=model, fen_per_million=0)  # uncovered is never billed

    billrun.bill_cycle(cycle=OCTOBER, now=after_october)

    lines = InvoiceLine.objects.order_by("position")
    assert [(line.model_code, line.fen_per_million, line.gross_fen) for line in lines] == [
        ("deepseek-v3.2", 300, 0),
        ("deepseek-v3.2", 400, 1),
        ("glm-5", 400, 1),
    ]
    for line in lines:
        billed = Overage.objects.filter(invoice_line_id=line.pk).aggregate(mt=Sum("mt"))["mt"]
        assert billed == line.quantity_mt
    assert Overage.objects.filter(invoice_line_id__isnull=True).get().mt == 7


def test_the_rate_is_that_of_the_last_day_of_the_cycle_it_is_owed_for(debtors: Debtors) -> None:
    december, january = DECEMBER.replace(year=2025), OCTOBER.replace(month=1)
    subscriber = debtors.account()
    debtors.charge(subscriber, 990, cycle=december, tax_category="mobile_data")
    debtors.charge(subscriber, 990, cycle=january, tax_category="mobile_data")
    billrun.bill_cycle(cycle=january, now=periods.cycle_end(january))
    lines = InvoiceLine.objects.order_by("usage_cycle")
    assert [(line.rate_bp, line.net_fen, line.vat_fen) for line in lines] == [
        (600, 934, 56),
        (900, 908, 82),
    ]


def test_a_category_without_a_rate_stops_the_run_and_names_it(
    debtors: Debtors, after_october: datetime
) -> None:
    debtors.charge(debtors.account(), tax_category="roaming")
    with pytest.raises(MissingTaxRate, match="roaming on 2026-10-31"):
        billrun.bill_cycle(cycle=OCTOBER, now=after_october)
    assert not Invoice.objects.exists()
    assert BillRun.objects.get().state == BillRun.State.RUNNING


def test_zero_is_invoiced_and_credit_beyond_the_debts_waits_for_the_next_cycle(
    debtors: Debtors, after_october: datetime
) -> None:
    even, owed = debtors.account(), debtors.account()
    debtors.charge(even, 990)
    debtors.charge(even, -990)
    debtors.charge(owed, -1_000)
    result = billrun.bill_cycle(cycle=OCTOBER, now=after_october)
    assert (result.issued, result.carried) == (1, 1)
    assert Invoice.objects.get().account_id == even.account_id

    debtors.charge(owed, 2_990, cycle=NOVEMBER)
    billrun.bill_cycle(cycle=NOVEMBER, now=periods.cycle_end(NOVEMBER))
    assert Invoice.objects.get(cycle=NOVEMBER).gross_fen == 1_990


def test_numbers_have_20_digits_and_no_gap_over_shards(
    debtors: Debtors, after_october: datetime
) -> None:
    for _ in range(7):
        debtors.charge(debtors.account())
    billrun.bill_cycle(cycle=OCTOBER, now=after_october, shard=3)
    numbers = list(Invoice.objects.order_by("account_id").values_list("number", flat=True))
    assert all(re.fullmatch(r"[0-9]{2}[0-9]{2}[0-9][0-9]{15}", number) for number in numbers)
    assert numbers == [f"26311{serial:015d}" for serial in range(1, 8)]


def test_a_preview_says_what_would_be_issued_and_leaves_nothing(
    debtors: Debtors, model: InferenceModel, after_october: datetime
) -> None:
    for _ in range(3):
        subscriber = debtors.account()
        debtors.charge(subscriber)
        debtors.overage(subscriber, 10**9, model=model)
    seen = billrun.preview(cycle=OCTOBER, now=after_october, shard=2)
    assert not Invoice.objects.exists()
    assert not BillRun.objects.exists()
    assert not Overage.objects.filter(invoice_line_id__isnull=False).exists()
    done = billrun.bill_cycle(cycle=OCTOBER, now=after_october)
    assert (seen.invoices, seen.net_fen, seen.vat_fen, seen.gross_fen) == (
        done.invoices,
        done.net_fen,
        done.vat_fen,
        done.gross_fen,
    )


def test_a_shard_costs_as_many_statements_for_one_account_as_for_twenty(
    debtors: Debtors, model: InferenceModel
) -> None:
    counted = []
    for cycle, accounts in [(OCTOBER, 1), (NOVEMBER, 20)]:
        for _ in range(accounts):
            subscriber = debtors.account()
            debtors.charge(subscriber, cycle=cycle)
            debtors.overage(subscriber, 10**9, cycle=cycle, model=model)
        with CaptureQueriesContext(connection) as queries:
            result = billrun.bill_cycle(cycle=cycle, now=periods.cycle_end(cycle))
        assert result.issued == accounts
        counted.append(len(queries))
    assert counted[0] == counted[1]
