"""Overage that a correction takes back: netted before the bill, a credit line after it."""

import json
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command

from invoicing import assurance, billrun, money, node_assurance, pdf
from invoicing.models import Invoice, InvoiceLine
from plans import subscribing
from usage import corrections, ingest, nodes, periods, proof
from usage.models import InferenceModel, Node, Overage, UsageEvent
from usage.normalising import Counts

from .conftest import DECEMBER, NOVEMBER, OCTOBER, Debtors

pytestmark = pytest.mark.django_db

STARTS = periods.cycle_start(OCTOBER)
PAYER = "+8613900000002"
AFTER = {cycle: periods.cycle_end(cycle) + timedelta(hours=2) for cycle in (OCTOBER, NOVEMBER)}
MORNING = STARTS + timedelta(days=3)
NOVEMBER_MORNING = periods.cycle_start(NOVEMBER) + timedelta(days=3)


@pytest.fixture
def node(db: None) -> Node:
    call_command("load_catalogue", verbosity=0)
    subscribing.sign_up(
        msisdn=PAYER, plan_code="payg-4", starts_at=STARTS, actor="clerk", now=STARTS
    )
    return nodes.create_node(name="wuxi-sn1-n7", now=STARTS)[0]


def use(
    node: Node, number: int, tokens: int, at: datetime = MORNING, *, now: datetime | None = None
) -> int:
    """Report an event, at once unless told; its stored number."""
    event = {
        "specversion": "1.0",
        "id": f"req-{number}",
        "source": node.name,
        "type": "inference.completed",
        "subject": PAYER,
        "time": at.isoformat(),
        "data": {"model": "deepseek-v3.2", "usage": {"prompt_tokens": tokens}},
    }
    ingest.ingest(node=node, events=[json.dumps(event).encode()], now=now or at)
    return UsageEvent.objects.get(event_id=f"req-{number}").pk


def void(number: int, now: datetime) -> None:
    corrections.void(event_id=number, actor="li", reason="wrong", key=f"v{number}", now=now)


def assured(*cycles: date) -> list[dict[str, Any]]:
    """The proof of each cycle; none may differ."""
    reports = []
    for cycle in cycles:
        report = assurance.assure(start=cycle, end=periods.next_cycle(cycle))
        assert report["differences"] == []
        reports.append(report)
    assert proof.verify() == []
    return reports


def lines(cycle: date) -> list[tuple[int | None, int, date]]:
    rows = InvoiceLine.objects.filter(kind="overage", invoice__cycle=cycle).order_by("position")
    return [(one.quantity_mt, one.gross_fen, one.usage_cycle) for one in rows]


def test_what_is_taken_back_before_the_bill_is_not_on_it(node: Node) -> None:
    kept, gone = use(node, 1, 3_000_000), use(node, 2, 1_500_000)
    void(gone, MORNING + timedelta(hours=1))
    billrun.bill_cycle(cycle=OCTOBER, now=AFTER[OCTOBER])
    mt = UsageEvent.objects.get(pk=kept).mt
    assert lines(OCTOBER) == [(mt, money.overage_fen(mt, 400), OCTOBER)]
    (report,) = assured(OCTOBER)
    assert (report["not_invoiced_mt"], report["invoiced_mt"]) == (0, mt)


def test_the_proof_by_node_follows_a_credit_onto_its_invoice(node: Node) -> None:
    gone = use(node, 1, 1_000_000)
    mt = UsageEvent.objects.get(pk=gone).mt
    billrun.bill_cycle(cycle=OCTOBER, now=AFTER[OCTOBER])
    void(gone, AFTER[OCTOBER] + timedelta(hours=1))

    def invoiced() -> tuple[int, ...]:
        report = node_assurance.assure_nodes(start=OCTOBER, end=NOVEMBER)
        assert report["differences"] == []
        (row,) = report["nodes"]
        assert (row["overage_mt"], row["corrected_overage_mt"]) == (mt, 0)
        names = ("invoiced_mt", "correction_invoiced_mt", "corrected_invoiced_mt")
        return tuple(row[name] for name in names)

    assert invoiced() == (mt, 0, mt)  # billed, and not yet credited
    use(node, 2, 4_000_000, NOVEMBER_MORNING)
    billrun.bill_cycle(cycle=NOVEMBER, now=AFTER[NOVEMBER])
    assert invoiced() == (mt, -mt, 0)


def test_overage_taken_back_whole_is_a_line_of_nothing(node: Node) -> None:
    void(use(node, 1, 3_000_000), MORNING + timedelta(hours=1))
    billrun.bill_cycle(cycle=OCTOBER, now=AFTER[OCTOBER])
    assert lines(OCTOBER) == [(0, 0, OCTOBER)]
    assured(OCTOBER)


def test_what_is_taken_back_of_an_invoice_is_a_credit_on_the_next(node: Node) -> None:
    gone = use(node, 1, 1_234_567)
    billrun.bill_cycle(cycle=OCTOBER, now=AFTER[OCTOBER])
    ((mt, fen, _cycle),) = lines(OCTOBER)
    void(gone, AFTER[OCTOBER] + timedelta(hours=1))
    (report,) = assured(OCTOBER)
    assert (report["priced_mt"], report["invoiced_mt"], report["not_invoiced_mt"]) == (0, mt, -mt)  # type: ignore[operator]
    use(node, 2, 4_000_000, NOVEMBER_MORNING)
    billrun.bill_cycle(cycle=NOVEMBER, now=AFTER[NOVEMBER])
    credit, owed = lines(NOVEMBER)
    assert credit == (-mt, -fen, OCTOBER)  # type: ignore[operator]
    invoice = Invoice.objects.get(cycle=NOVEMBER)
    assert invoice.gross_fen == owed[1] - fen
    line = InvoiceLine.objects.get(invoice=invoice, quantity_mt__lt=0)
    former = InvoiceLine.objects.get(invoice__cycle=OCTOBER, kind="overage")
    assert (line.net_fen, line.vat_fen) == (-former.net_fen, -former.vat_fen)
    assert line.name.startswith("超出用量更正") and line.name_en.startswith("Correction of usage")
    october, november = assured(OCTOBER, NOVEMBER)
    assert (october["priced_fen"], october["invoiced_fen"]) == (0, 0)
    assert november["not_invoiced_fen"] == 0
    assert pdf.render(invoice=invoice).startswith(b"%PDF")


def test_a_credit_above_the_debts_waits_for_them(node: Node) -> None:
    gone = use(node, 1, 9_000_000)
    billrun.bill_cycle(cycle=OCTOBER, now=AFTER[OCTOBER])
    corrections.amend(
        event_id=gone, counts=Counts(1_000, 0, 0, 0), actor="li", reason="wrong", key="a",
        now=AFTER[OCTOBER],
    )  # fmt: skip
    use(node, 2, 1_000, NOVEMBER_MORNING)
    result = billrun.bill_cycle(cycle=NOVEMBER, now=AFTER[NOVEMBER])
    assert (result.issued, result.carried) == (0, 1)
    (october,) = assured(OCTOBER)
    assert october["not_invoiced_mt"] < 0
    use(node, 3, 20_000_000, periods.cycle_start(DECEMBER) + timedelta(days=1))
    billrun.bill_cycle(cycle=DECEMBER, now=periods.cycle_end(DECEMBER))
    assert [cycle for _mt, _fen, cycle in lines(DECEMBER)] == [OCTOBER, NOVEMBER, DECEMBER]
    for report in assured(OCTOBER, NOVEMBER, DECEMBER):
        assert report["not_invoiced_fen"] == report["not_invoiced_mt"] == 0


@pytest.mark.parametrize("mt", [1, 1_249_999, 1_250_000, 1_250_001, 3_749_999, 987_654_321])
def test_a_credit_mirrors_its_charge_to_the_fen(
    rates: None, debtors: Debtors, model: InferenceModel, mt: int
) -> None:
    subscriber = debtors.account()
    debtors.charge(subscriber, 100_000)
    debtors.overage(subscriber, mt, model=model)
    billrun.bill_cycle(cycle=OCTOBER, now=AFTER[OCTOBER])
    debtors.charge(subscriber, 100_000, cycle=NOVEMBER)
    debtors.overage(subscriber, -mt, model=model)
    billrun.bill_cycle(cycle=NOVEMBER, now=AFTER[NOVEMBER])
    owed, credit = InvoiceLine.objects.filter(kind="overage").order_by("id")
    assert owed.gross_fen == money.overage_fen(mt, 400)
    assert (credit.gross_fen, credit.net_fen) == (-owed.gross_fen, -owed.net_fen)
    assert Overage.objects.filter(invoice_line_id=None).count() == 0
    found = assurance.assure(start=OCTOBER, end=NOVEMBER)["differences"]
    assert not {one["rule"] for one in found} & assurance.RULES.keys()
