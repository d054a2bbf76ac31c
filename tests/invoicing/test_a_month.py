"""A month of real activities, from sign-up to the proof: nothing is lost and all of it balances."""

import json
import random
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import call_command
from django.db.models import Sum

from accounts.models import Subscriber
from invoicing import assurance, billrun, money
from invoicing.models import Invoice, InvoiceLine
from plans import ordering, subscribing
from usage import ingest, nodes, periods, proof
from usage.models import Node, Overage, UsageEvent

from .conftest import NOVEMBER, OCTOBER

pytestmark = pytest.mark.django_db

STARTS = periods.cycle_start(OCTOBER)
PLANS = {"+8613900000001": "token-9.9", "+8613900000002": "payg-4", "+8613900000003": "dev-39.9"}


@pytest.fixture
def node(db: None) -> Node:
    call_command("load_catalogue", verbosity=0)
    for number, code in PLANS.items():
        subscribing.sign_up(
            msisdn=number, plan_code=code, starts_at=STARTS, actor="clerk", now=STARTS
        )
    return nodes.create_node(name="wuxi-sn1-n7", now=STARTS)[0]


def event(number: int, msisdn: str, at: datetime, tokens: int) -> bytes:
    usage = {"prompt_tokens": tokens, "completion_tokens": tokens // 3}
    usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    return json.dumps(
        {
            "specversion": "1.0",
            "id": f"req-{number}",
            "source": "wuxi-sn1-n7",
            "type": "inference.completed",
            "subject": msisdn,
            "time": at.isoformat(),
            "data": {"model": "deepseek-v3.2", "usage": usage},
        }
    ).encode()


def test_a_month_is_used_billed_and_proven(node: Node) -> None:
    chosen = random.Random(11)  # noqa: S311 (a seeded draw, not a secret)
    numbers = [*PLANS, "+8613999999999"]  # the last one is nobody's
    for day in range(31):
        now = STARTS + timedelta(days=day, hours=12)
        batch = [
            event(day * 20 + one, chosen.choice(numbers), now, chosen.randrange(1, 400_000))
            for one in range(20)
        ]
        ingest.ingest(node=node, events=[*batch, batch[0], b"{}"], now=now)
    payg = Overage.objects.filter(priced=True).values_list("account_id", flat=True)[0]
    buyer = Subscriber.objects.get(msisdn="+8613900000001")
    ordering.place_order(
        subscriber_id=buyer.pk, plan_code="pack-250k", pay="bill", key="o", now=now
    )

    after = periods.cycle_end(OCTOBER) + timedelta(hours=2)
    result = billrun.bill_cycle(cycle=OCTOBER, now=after)

    assert result.invoices == 3
    assert proof.verify() == []
    report = assurance.assure(start=OCTOBER, end=NOVEMBER)
    assert report["differences"] == []
    assert report["received"] == 31 * 22
    assert min(report[key] for key in ("accepted", "duplicate", "rejected", "overage_mt")) > 0
    assert report["not_invoiced_mt"] == 0
    assert report["priced_fen"] == report["invoiced_fen"] == report["gross_fen"]
    line = InvoiceLine.objects.get(invoice__account_id=payg, kind="overage")
    used = Overage.objects.filter(priced=True).aggregate(mt=Sum("mt"))["mt"]
    assert line.quantity_mt == used == report["overage_mt"]
    assert line.gross_fen == money.overage_fen(used, 400)
    mine = Invoice.objects.get(account_id=buyer.account_id)
    assert list(mine.lines.order_by("position").values_list("kind", "gross_fen")) == [
        ("fee", 990),
        ("pack", 100),
    ]


def test_usage_on_either_side_of_midnight_in_shanghai_is_billed_in_its_own_month(
    node: Node,
) -> None:
    last, first = datetime(2026, 10, 31, 15, 59, 59, tzinfo=UTC), periods.cycle_end(OCTOBER)
    for number, at in enumerate([last, first]):
        ingest.ingest(node=node, events=[event(number, "+8613900000002", at, 3_000_000)], now=at)
    assert UsageEvent.objects.count() == 2
    cycles = [(OCTOBER, periods.cycle_end(OCTOBER)), (NOVEMBER, periods.cycle_end(NOVEMBER))]
    for cycle, now in cycles:
        billrun.bill_cycle(cycle=cycle, now=now)
    lines = InvoiceLine.objects.filter(kind="overage").order_by("usage_cycle")
    assert [(line.usage_cycle, line.invoice.cycle) for line in lines] == [
        (OCTOBER, OCTOBER),
        (NOVEMBER, NOVEMBER),
    ]
