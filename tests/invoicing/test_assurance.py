"""The proof balances what is right, and names what was bent behind its back."""

import json
from datetime import datetime
from io import StringIO

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import connection

from invoicing import assurance, billrun, paying, tasks
from invoicing.models import AssuranceResult, BillRun, Invoice
from usage import periods
from usage.models import InferenceModel, Overage
from usage.periods import InvalidPeriod

from .conftest import NOVEMBER, OCTOBER, Debtors

pytestmark = pytest.mark.django_db


def money_rules(report: dict[str, object]) -> set[str]:
    """Broken rules of money. These rows have no events, so usage's own rules are left out."""
    found = report["differences"]
    assert isinstance(found, list)
    return {one["rule"] for one in found if one["rule"] in assurance.RULES}


@pytest.fixture
def billed(rates: None, debtors: Debtors, model: InferenceModel, after_october: datetime) -> None:
    for _ in range(2):
        subscriber = debtors.account()
        debtors.charge(subscriber)
        debtors.overage(subscriber, 1_250_000, model=model)
    billrun.bill_cycle(cycle=OCTOBER, now=after_october)


def test_an_empty_period_is_proven_with_every_key(db: None) -> None:
    report = assurance.assure(start=OCTOBER, end=NOVEMBER)
    keys = {
        "received",
        "duplicate",
        "conflict",
        "rejected",
        "accepted",
        "accepted_mt",
        "debited_mt",
        "overage_mt",
        "uncovered_mt",
        "priced_mt",
        "invoiced_mt",
        "not_invoiced_mt",
        "priced_fen",
        "invoiced_fen",
        "not_invoiced_fen",
        "invoices",
    }
    assert keys <= report.keys()
    assert report["differences"] == []
    assert {report[key] for key in keys} == {0}
    with pytest.raises(InvalidPeriod):
        assurance.assure(start=OCTOBER, end=OCTOBER)


def test_priced_is_invoiced_and_not_yet_invoiced(
    billed: None, debtors: Debtors, model: InferenceModel
) -> None:
    subscriber = debtors.account()
    debtors.charge(subscriber, 100)
    debtors.overage(subscriber, 3_000_000, model=model)
    report = assurance.assure(start=OCTOBER, end=NOVEMBER)
    assert (report["priced_mt"], report["invoiced_mt"]) == (5_500_000, 2_500_000)
    assert report["not_invoiced_mt"] == 3_000_000
    assert (report["priced_fen"], report["invoiced_fen"]) == (2_083, 1_982)
    assert report["not_invoiced_fen"] == 101
    assert (report["invoices"], report["gross_fen"]) == (2, 1_982)
    assert money_rules(report) == set()


@pytest.mark.parametrize(
    ("rule", "attack"),
    [
        (
            "an overage line holds the mt that name it",
            "UPDATE usage_overage SET mt = mt + 1",
        ),
        (
            "billed overage names a line of an invoice",
            "UPDATE usage_overage SET invoice_line_id = 999999",
        ),
        (
            "a line's amount follows from quantity, price and rate",
            "UPDATE invoicing_invoiceline SET vat_fen = vat_fen + 2, net_fen = net_fen - 2",
        ),
        (
            "an invoice is the sum of its lines",
            "UPDATE invoicing_invoice SET net_fen = net_fen + 1, gross_fen = gross_fen + 1",
        ),
        ("invoice numbers have no gap", "UPDATE invoicing_invoiceseries SET last_number = 3"),
    ],
)
def test_what_is_bent_past_the_triggers_is_named(billed: None, rule: str, attack: str) -> None:
    with connection.cursor() as cursor:
        # As a superuser with a wrench would do it: triggers are off for this session.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(attack)
        cursor.execute("SET LOCAL session_replication_role = origin")
    assert rule in money_rules(assurance.assure(start=OCTOBER, end=NOVEMBER))


def test_an_invoice_paid_twice_is_named(invoice: Invoice, after_october: datetime) -> None:
    for key in ("a", "b"):
        payment = paying.start_payment(
            account_id=invoice.account_id,
            invoice_id=invoice.pk,
            method="offline",
            key=key,
            now=after_october,
        )
        if key == "a":
            first = payment
    paying.confirm_offline(payment_id=payment.pk, actor="li", now=after_october)
    first.refresh_from_db()
    first.state = "succeeded"  # as if the former's money came after all
    first.save(update_fields=["state"])
    report = assurance.assure(start=OCTOBER, end=NOVEMBER)
    assert money_rules(report) == {"no invoice is paid twice"}


def test_the_command_prints_one_object_and_its_status_says_whether_it_balances(
    rates: None, debtors: Debtors, after_october: datetime
) -> None:
    debtors.charge(debtors.account())
    billrun.bill_cycle(cycle=OCTOBER, now=after_october)
    period = ["--from", "2026-10-01", "--to", "2026-11-01"]
    out = StringIO()
    call_command("assurance", *period, "--json", stdout=out)
    assert json.loads(out.getvalue())["invoiced_fen"] == 990
    Overage.objects.create(
        event_id=1,
        batch_id=1,
        subscriber_id=1,
        account_id=1,
        model_id=1,
        cycle=OCTOBER,
        occurred_at=periods.cycle_start(OCTOBER),
        recorded_at=periods.cycle_start(OCTOBER),
        mt=5,
        priced=True,
        fen_per_million=400,
    )
    out = StringIO()
    with pytest.raises(SystemExit) as left:
        call_command("assurance", *period, stdout=out)
    assert left.value.code == 1
    assert "expected 0, found 5" in out.getvalue()
    with pytest.raises(CommandError, match="not a day"):
        call_command("assurance", "--from", "October", "--to", "2026-11-01")


def test_the_bill_run_command_previews_issues_and_repeats(
    rates: None, debtors: Debtors, after_october: datetime
) -> None:
    debtors.charge(debtors.account())
    printed = []
    with time_machine.travel(after_october, tick=False):
        for extra in (["--dry-run"], [], ["--json"]):
            out = StringIO()
            call_command("bill_run", "2026-10", *extra, stdout=out)
            printed.append(out.getvalue())
        with pytest.raises(CommandError, match="bill it after that"):
            call_command("bill_run", "2026-11")
    assert "1 invoices, would be issued" in printed[0]
    assert "1 invoices, 1 of them now" in printed[1]
    report = json.loads(printed[2])
    assert (report["invoices"], report["issued"], report["gross_fen"]) == (1, 0, 990)


def test_beat_bills_the_month_that_ended_from_two_in_the_morning_until_it_is_done(
    rates: None, debtors: Debtors, after_october: datetime
) -> None:
    debtors.charge(debtors.account())
    with time_machine.travel(periods.cycle_end(OCTOBER), tick=False):
        tasks.issue_invoices()
        assert not BillRun.objects.exists()
    with time_machine.travel(after_october, tick=False):
        tasks.issue_invoices()
    assert Invoice.objects.count() == 1
    late = debtors.account()
    debtors.charge(late)
    with time_machine.travel(periods.cycle_end(NOVEMBER), tick=False) as clock:
        clock.shift(-1)
        tasks.issue_invoices()
        assert Invoice.objects.count() == 1  # the run is done; what comes late waits
        clock.shift(3 * 3600)
        tasks.issue_invoices()
    assert Invoice.objects.count() == 2


def test_the_nightly_proof_keeps_one_result_a_day_and_on_the_first_one_of_the_month(
    billed: None, after_october: datetime
) -> None:
    with time_machine.travel(after_october, tick=False):
        tasks.assure_yesterday()
        tasks.assure_yesterday()
    spans = [
        (periods.day_of(result.period_start), periods.day_of(result.period_end))
        for result in AssuranceResult.objects.order_by("id")
    ]
    assert spans == [(OCTOBER.replace(day=31), NOVEMBER), (OCTOBER, NOVEMBER)]
