"""Bill runs that race, and one that is killed: nobody is billed twice, no number is missing."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime

import pytest
from django.db import connection
from django.db.models import Sum

from invoicing import assurance, billrun
from invoicing.models import BillRun, Invoice, InvoiceLine, InvoiceSeries
from plans.models import Charge
from usage import periods
from usage.models import InferenceModel, Overage

from .conftest import NOVEMBER, OCTOBER, Debtors

pytestmark = pytest.mark.django_db(transaction=True)

ACCOUNTS = 60
BILL_IN_A_PROCESS = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
import django
django.setup()
from django.db import connection
connection.settings_dict["NAME"] = sys.argv[1]
from datetime import date, datetime
from invoicing import billrun
billrun.bill_cycle(
    cycle=date.fromisoformat(sys.argv[2]), now=datetime.fromisoformat(sys.argv[3]), shard=1
)
"""


@pytest.fixture
def owing(rates: None, debtors: Debtors, model: InferenceModel) -> None:
    for _ in range(ACCOUNTS):
        subscriber = debtors.account()
        debtors.charge(subscriber)
        debtors.overage(subscriber, 1_234_567, model=model)
        debtors.overage(subscriber, 10**9, model=model)


def assert_billed_once(invoices: int) -> None:
    numbers = list(Invoice.objects.order_by("number").values_list("number", flat=True))
    assert [int(number[5:]) for number in numbers] == list(range(1, invoices + 1))
    assert InvoiceSeries.objects.get().last_number == invoices
    assert not Invoice.objects.exclude(state="final").exists()
    assert Invoice.objects.values("account", "cycle").distinct().count() == invoices
    charged = Charge.objects.aggregate(fen=Sum("amount_fen"))["fen"]
    assert (
        InvoiceLine.objects.exclude(charge=None).aggregate(fen=Sum("gross_fen"))["fen"] == charged
    )
    assert not Overage.objects.filter(invoice_line_id__isnull=True).exists()
    used = Overage.objects.aggregate(mt=Sum("mt"))["mt"]
    assert InvoiceLine.objects.aggregate(mt=Sum("quantity_mt"))["mt"] == used
    report = assurance.assure(start=OCTOBER, end=periods.next_cycle(NOVEMBER))
    # The rows were made without events and batches, so only the money side can be proven here.
    assert [found for found in report["differences"] if "mt" not in found["rule"]] == []


def test_runs_of_one_cycle_and_of_the_next_at_once_bill_each_item_once(
    owing: None, debtors: Debtors
) -> None:
    now = periods.cycle_end(NOVEMBER)

    def bill(cycle: date) -> int:
        try:
            return billrun.bill_cycle(cycle=cycle, now=now, shard=7).issued
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        issued = list(pool.map(bill, [OCTOBER, OCTOBER, NOVEMBER, OCTOBER]))
    # Either cycle may come first to an account; late items go on the later cycle's invoice.
    assert sum(issued) == ACCOUNTS
    assert_billed_once(ACCOUNTS)


def test_a_run_that_is_killed_between_shards_goes_on_where_it_stopped(
    owing: None, after_october: datetime
) -> None:
    name = str(connection.settings_dict["NAME"])
    running = _start(name, after_october)
    try:
        billed = 0
        deadline = time.monotonic() + 60
        while billed < 5 and time.monotonic() < deadline:
            assert running.poll() is None, "the run ended before it could be killed"
            billed = Invoice.objects.count()
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    billed = Invoice.objects.count()
    assert 5 <= billed < ACCOUNTS
    assert BillRun.objects.get().state == BillRun.State.RUNNING

    result = billrun.bill_cycle(cycle=OCTOBER, now=after_october)

    assert result.invoices == ACCOUNTS
    assert BillRun.objects.get().state == BillRun.State.DONE
    assert_billed_once(ACCOUNTS)


def test_two_processes_at_once_bill_each_account_once(owing: None, after_october: datetime) -> None:
    name = str(connection.settings_dict["NAME"])
    both = [_start(name, after_october) for _ in range(2)]
    assert [process.wait(timeout=100) for process in both] == [0, 0]
    assert_billed_once(ACCOUNTS)


def test_usage_that_arrives_during_the_run_is_on_this_invoice_or_waits(
    owing: None, debtors: Debtors, model: InferenceModel, after_october: datetime
) -> None:
    accounts = [invoice.subscriber for invoice in Charge.objects.select_related("subscriber")]

    def use() -> None:
        try:
            for subscriber in accounts:
                debtors.overage(subscriber, 999, model=model)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        arriving = pool.submit(use)
        billrun.bill_cycle(cycle=OCTOBER, now=after_october, shard=5)
        arriving.result()
    billrun.bill_cycle(cycle=NOVEMBER, now=periods.cycle_end(NOVEMBER))

    for line in InvoiceLine.objects.filter(kind="overage"):
        marked = Overage.objects.filter(invoice_line_id=line.pk).aggregate(mt=Sum("mt"))["mt"]
        assert marked == line.quantity_mt
    assert not Overage.objects.filter(invoice_line_id__isnull=True).exists()


def _start(database: str, now: datetime) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", BILL_IN_A_PROCESS, database, f"{OCTOBER}", now.isoformat()]
    # tests/settings.py adds its own folder below the one that is given.
    folder = os.path.dirname(os.environ["VAR_DIR"])
    return subprocess.Popen(command, env={**os.environ, "VAR_DIR": folder})  # noqa: S603
