"""The proof of a period: every event is accounted for, everything priced is invoiced or waits.

Reads only, all of it at one instant. usage proves events and tokens (what the tallies say against
the stored events, debits and overage); here follow overage, charges, lines, invoices and payments.
"""

from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from usage import periods, proof
from usage.proof import Difference

from .assurance_sql import (
    BILLED_WITHOUT_LINE,
    CHARGED,
    GAPS_IN_NUMBERS,
    INVOICES_THAT_DIFFER,
    LINES_THAT_DIFFER,
    OVERAGE_FOUND,
    OVERAGE_LINES_THAT_DIFFER,
    OVERPAID,
    PRICED_OVERAGE,
)
from .models import AssuranceResult
from .querying import fetch

MOST_DIFFERENCES = 100  # of one rule; the first hundred say where to look
RULES = {
    "billed overage names a line of an invoice": BILLED_WITHOUT_LINE,
    "an overage line holds the mt that name it": OVERAGE_LINES_THAT_DIFFER,
    "a line's amount follows from quantity, price and rate": LINES_THAT_DIFFER,
    "an invoice is the sum of its lines": INVOICES_THAT_DIFFER,
    "invoice numbers have no gap": GAPS_IN_NUMBERS,
    "no invoice is paid twice": OVERPAID,
}


def assure(*, start: date, end: date) -> dict[str, Any]:
    """The proof for the billing-zone days [start, end) as one object; no `differences` if proven.

    Events and millitokens are those used in the period. Money, in fen with tax, is that of the
    cycles that begin in it: priced_fen = invoiced_fen + not_invoiced_fen, of which charges and
    overage. InvalidPeriod when the period is empty.
    """
    if not start < end:
        raise periods.InvalidPeriod("The period is empty: its end must lie after its start.")
    about = {
        "start": start,
        "end": end,
        "from": periods.day_start(start),
        "until": periods.day_start(end),
        "most": MOST_DIFFERENCES,
    }
    with proof.snapshot():
        totals, differences = proof.period_totals(start=start, end=end)
        money, more = _money(about)
    report = {**totals, **money}
    for unit in ("mt", "fen"):
        both = report[f"invoiced_{unit}"] + report[f"not_invoiced_{unit}"]
        if report[f"priced_{unit}"] != both:
            rule = f"priced_{unit} = invoiced_{unit} + not_invoiced_{unit}"
            more.append(Difference(rule, f"{start}/{end}", report[f"priced_{unit}"], both))
    if report["priced_mt"] != report["overage_mt"]:
        rule = "overage_mt = mt of priced overage"
        more.append(Difference(rule, f"{start}/{end}", report["overage_mt"], report["priced_mt"]))
    return {**report, "differences": [asdict(found) for found in [*differences, *more]]}


def record(*, start: date, end: date, now: datetime) -> AssuranceResult:
    """Prove a period and keep the result; one that says the same as the newest is not repeated."""
    report = assure(start=start, end=end)
    period = {"period_start": periods.day_start(start), "period_end": periods.day_start(end)}
    newest = AssuranceResult.objects.filter(**period).order_by("-id").first()
    if newest is not None and newest.report == report:
        return newest
    return AssuranceResult.objects.create(
        **period, proven=not report["differences"], report=report, made_at=now
    )


def _money(about: dict[str, Any]) -> tuple[dict[str, int], list[Difference]]:
    overage = fetch(OVERAGE_FOUND, about)[0]
    charged = fetch(CHARGED, about)[0]
    priced = fetch(PRICED_OVERAGE, about)[0]
    totals = {
        "priced_mt": overage["priced_mt"],
        "invoiced_mt": overage["invoiced_mt"],
        "not_invoiced_mt": overage["not_invoiced_mt"],
        "charged_fen": charged["charged_fen"],
        "priced_fen": charged["charged_fen"] + priced["priced_fen"],
        "invoiced_fen": charged["invoiced_fen"] + priced["invoiced_fen"],
        "not_invoiced_fen": charged["not_invoiced_fen"] + priced["not_invoiced_fen"],
        "invoices": charged["invoices"],
        "net_fen": charged["net_fen"],
        "vat_fen": charged["vat_fen"],
        "gross_fen": charged["gross_fen"],
    }
    differences = [
        Difference(rule, row["place"], int(row["expected"]), int(row["found"]))
        for rule, statement in RULES.items()
        for row in fetch(statement, about)
    ]
    return totals, differences
