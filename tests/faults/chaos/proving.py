"""The proof afterwards: what was acknowledged is there once, what was not is there once or not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db import connection
from django.db.models import Sum

from invoicing import assurance
from invoicing.models import Invoice
from plans.models import Charge
from usage import proof
from usage.models import Bucket, CycleOverage, Overage, QuotaSession, UsageEvent
from usage.periods import next_cycle

from .driving import BATCH, EVENTS, Caller
from .journal import Journal
from .world import Carrier

PART = 500  # events of a batch when everything is sent again

# Events that nobody, or somebody twice, paid for (mt of the event, mt paid), and payments for
# events that are not there: no row.
PAID_OTHERWISE = """
    WITH paid AS (
        SELECT entry.event_id AS id, -entry.amount_mt AS mt FROM usage_ledgerentry AS entry
         WHERE entry.kind IN ('debit', 'refund')
         UNION ALL
        SELECT overage.event_id, overage.mt FROM usage_overage AS overage
    ), paid_by_id AS (SELECT paid.id, SUM(paid.mt) AS mt FROM paid GROUP BY paid.id)
    SELECT COALESCE(event.id, paid_by_id.id), event.mt, paid_by_id.mt
      FROM usage_usageevent AS event
      FULL JOIN paid_by_id ON paid_by_id.id = event.id
     WHERE COALESCE(event.mt, 0) <> COALESCE(paid_by_id.mt, 0)
     ORDER BY 1
"""

KEYS = "SELECT COUNT(*) FROM usage_eventkey"


@dataclass(frozen=True)
class Line:
    """One line of the verdict: what was counted, what it had to be."""

    what: str
    expected: Any
    found: Any

    @property
    def holds(self) -> bool:
        return bool(self.expected == self.found)


def events_are_stored_once(journal: Journal) -> list[Line]:
    """Acknowledged: exactly once. Not acknowledged: once or not at all, and never half."""
    rows = UsageEvent.objects.values_list("event_id", "mt")
    stored = dict(rows)
    unknown = {id: mt for id, mt in stored.items() if id not in journal.sent}
    lost = journal.acknowledged - stored.keys()
    wrong = {id: mt for id, mt in stored.items() - unknown.items() if journal.sent[id].mt != mt}
    return [
        Line("acknowledged events that are not stored", 0, len(lost)),
        Line("events stored twice", 0, len(rows) - len(stored)),
        Line("events stored that nobody sent", 0, len(unknown)),
        Line("events that count other than they should", 0, len(wrong)),
        Line("events not paid for exactly once", [], _rows(PAID_OTHERWISE)[:5]),
        Line("keys = events", len(stored), _rows(KEYS)[0][0]),
    ]


def everything_adds_up(carrier: Carrier) -> list[Line]:
    """verify_ledger, and the assurance of the month and of the next one."""
    following = next_cycle(carrier.cycle)
    months = assurance.assure(start=carrier.cycle, end=next_cycle(following))
    return [
        Line("verify_ledger finds", [], proof.verify()),
        Line("assurance finds", [], months["differences"]),
    ]


def at_the_end(journal: Journal, carrier: Carrier) -> list[Line]:
    """The same once more, when the month is over and billed."""
    lines = events_are_stored_once(journal) + everything_adds_up(carrier)
    return [replace(line, what=f"at the end: {line.what}") for line in lines]


def sent_again_nothing_changes(journal: Journal, caller: Caller) -> list[Line]:
    """First what may not have arrived; then all of it, events and questions."""
    open_events = [event for id, event in journal.sent.items() if id not in journal.acknowledged]
    stored = UsageEvent.objects.count()
    answers = _send(caller, [event.body for event in open_events])
    arrived = sum(answer["accepted"] for answer in answers)
    new = len(journal.sent) - stored
    before = _balances()
    again = _send(caller, [event.body for event in journal.sent.values()])
    return [
        Line("doubtful events that were new when sent again", new, arrived),
        Line("events stored in the end", len(journal.sent), UsageEvent.objects.count()),
        Line("all sent again: accepted", 0, sum(answer["accepted"] for answer in again)),
        Line("all sent again: duplicates", len(journal.sent), _sum(again, "duplicate")),
        Line("answers that differ when asked again", [], _other_answers(journal, caller)),
        Line("balances changed by that", [], sorted(_balances() ^ before)[:5]),
    ]


def nothing_is_held() -> list[Line]:
    """When the sessions are over."""
    opened = QuotaSession.objects.filter(state=QuotaSession.State.OPEN).count()
    held = Bucket.objects.aggregate(held=Sum("reserved_mt"))["held"]
    return [Line("open sessions", 0, opened), Line("mt reserved", 0, held)]


def each_account_is_billed_once(carrier: Carrier, stood: Sequence[int]) -> list[Line]:
    """One invoice for each account that owes anything, and nothing of the month left over; `stood`
    says how many invoices there were after each kill."""
    owing = set(Charge.objects.filter(cycle=carrier.cycle).values_list("account_id", flat=True))
    priced = Overage.objects.filter(cycle=carrier.cycle, priced=True)
    owing |= set(priced.values_list("account_id", flat=True))
    invoices = Invoice.objects.filter(cycle=carrier.cycle, state=Invoice.State.FINAL)
    serials = sorted(int(number[-15:]) for number in invoices.values_list("number", flat=True))
    month = assurance.assure(start=carrier.cycle, end=next_cycle(carrier.cycle))
    cut_short = sum(0 < count < len(owing) for count in stood)
    return [
        Line("bill runs killed in the middle", len(stood), cut_short),
        Line("invoices", len(owing), invoices.count()),
        Line("accounts billed", owing, set(invoices.values_list("account_id", flat=True))),
        Line("numbers without a gap", list(range(1, len(serials) + 1)), serials),
        Line("not invoiced fen of the month", 0, month["not_invoiced_fen"]),
        Line("priced = invoiced fen", month["priced_fen"], month["invoiced_fen"]),
    ]


def _send(caller: Caller, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    answers = []
    for start in range(0, len(bodies), PART):
        part = bodies[start : start + PART]
        response = caller.post(EVENTS, part, {"Content-Type": BATCH})
        response.raise_for_status()
        answers.append(response.json())
    return answers


def _sum(answers: Sequence[dict[str, Any]], name: str) -> int:
    return sum(answer[name] for answer in answers)


def _other_answers(journal: Journal, caller: Caller) -> list[str]:
    """Questions that get another answer than they got before, at most five."""
    other = []
    for told in journal.told:
        response = caller.post(told.path, told.body, told.headers)
        if response.json() != told.answer or not response.ok:
            other.append(f"{told.key}: {told.answer} then {response.status_code} {response.text}")
    return other[:5]


def _balances() -> set[tuple[Any, ...]]:
    """Every bucket, and what is beyond the buckets, as they stand."""
    buckets = Bucket.objects.values_list(
        "key", "granted_mt", "adjusted_mt", "remaining_mt", "reserved_mt"
    )
    beyond = CycleOverage.objects.values_list("subscriber_id", "cycle", "priced_mt", "uncovered_mt")
    return {*buckets, *((f"beyond {owner} {cycle}", *mts) for owner, cycle, *mts in beyond)}


def _rows(statement: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())
