"""The task that beat asks for every hour: it takes up what was begun, and waits for nobody."""

from datetime import datetime

import psycopg
import pytest
import time_machine
from django.db import connection

from invoicing import tasks
from invoicing.billrun_sql import LOCK_BILLING
from invoicing.models import BillRun, Invoice
from usage import periods

from .conftest import DECEMBER, NOVEMBER, OCTOBER, Debtors

pytestmark = pytest.mark.django_db


def test_no_broker_has_to_wait_for_its_end() -> None:
    """It may run for hours; RabbitMQ cuts a worker off that owes an answer for half an hour, and
    Valkey hands the task out again after twice the usual time limit."""
    assert not tasks.issue_invoices.acks_late


def test_beat_takes_up_runs_of_any_month_that_were_begun_each_for_its_own_invoices(
    rates: None, debtors: Debtors, after_october: datetime
) -> None:
    BillRun.objects.create(cycle=OCTOBER, started_at=after_october)
    subscriber = debtors.account()
    debtors.charge(subscriber)
    debtors.charge(subscriber, cycle=NOVEMBER)
    BillRun.objects.create(cycle=NOVEMBER, started_at=after_october)
    with time_machine.travel(periods.cycle_end(DECEMBER), tick=False):
        tasks.issue_invoices()
    assert set(Invoice.objects.values_list("cycle", flat=True)) == {OCTOBER, NOVEMBER}
    assert set(BillRun.objects.values_list("cycle", "state")) == {
        (OCTOBER, BillRun.State.DONE),
        (NOVEMBER, BillRun.State.DONE),
    }


def test_beat_leaves_a_run_alone_that_is_at_work(
    rates: None, debtors: Debtors, after_october: datetime
) -> None:
    debtors.charge(debtors.account())
    with time_machine.travel(after_october, tick=False):
        with psycopg.connect(**connection.get_connection_params()) as other:
            other.execute(LOCK_BILLING)
            tasks.issue_invoices()
            assert not BillRun.objects.exists()
        tasks.issue_invoices()
    assert Invoice.objects.count() == 1
