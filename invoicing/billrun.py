"""The bill run: one invoice per account and cycle, whatever happens, however often it is started.

Set-based, in shards of accounts, one transaction and one statement each. What is not billed yet
is found by looking, so a run that was stopped or killed is resumed by starting it again. The rules:

- Charges of the cycle and priced overage of the cycle go on the invoice, and so does what came late
  for earlier cycles that have their invoice already; each line names its own usage cycle.
- Overage is one line per model, price and usage cycle; the amount is rounded there, nowhere else.
- What a correction takes back is netted with the overage that is not billed yet; of overage that
  an earlier invoice bills it is a line below zero, rounded as its positive would be.
- VAT is inside the price. The rate is the category's on the last day of the cycle the line is owed
  for, so a late line is taxed as it would have been in time.
- A total of zero is invoiced (the document says what was used). A total below zero, which only
  credits can make, is not: the items wait and reduce the next cycle's invoice.

One advisory lock puts shards of all runs in line, so no item is seen by two of them; the unique
constraints on (account, cycle), on the number and on a line's charge hold even without it.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Sum

from config.retrying import retry_transaction
from usage import periods

from . import numbering
from .billrun_sql import (
    BILL_SHARD,
    BILLING_RESTS,
    FORGET_PLANS,
    LOCK_BILLING,
    NEW_IDS,
    SHARD_END,
    SHARD_LIMITS,
)
from .models import BillRun, Invoice
from .querying import fetch, run
from .refusals import CycleNotEnded, MissingTaxRate

SHARD_ACCOUNTS = 10_000
OVERAGE_CATEGORY = "token_package"


@dataclass(frozen=True)
class BillRunResult:
    """What one run did (`issued`, `carried`) and what the cycle holds now (the rest).

    `carried` accounts have credits above their debts: no invoice, the items wait. In a preview
    the counts and amounts are those that the run would issue.
    """

    cycle: date
    issued: int
    carried: int
    invoices: int
    net_fen: int
    vat_fen: int
    gross_fen: int


@dataclass(frozen=True)
class _Issued:
    invoices: int = 0
    carried: int = 0
    net_fen: int = 0
    vat_fen: int = 0
    gross_fen: int = 0

    def __add__(self, other: "_Issued") -> "_Issued":
        return _Issued(
            invoices=self.invoices + other.invoices,
            carried=self.carried + other.carried,
            net_fen=self.net_fen + other.net_fen,
            vat_fen=self.vat_fen + other.vat_fen,
            gross_fen=self.gross_fen + other.gross_fen,
        )


def bill_cycle(*, cycle: date, now: datetime, shard: int = SHARD_ACCOUNTS) -> BillRunResult:
    """Issue the invoices of a cycle, `shard` accounts a transaction; safe to run again or at once.

    CycleNotEnded before the cycle's last instant has passed; MissingTaxRate when a charge has no
    VAT rate: the shards before it stay billed and the run goes on once the rate is loaded.
    """
    refuse_running_cycle(cycle=cycle, now=now)
    BillRun.objects.get_or_create(cycle=cycle, defaults={"started_at": now})
    issued = _bill_shards(cycle, now, shard, keep=True)
    unfinished = BillRun.objects.filter(cycle=cycle).exclude(state=BillRun.State.DONE)
    unfinished.update(state=BillRun.State.DONE, finished_at=now)
    return _result(cycle, issued)


def preview(*, cycle: date, now: datetime, shard: int = SHARD_ACCOUNTS) -> BillRunResult:
    """What bill_cycle would issue now: the same statements, each shard rolled back."""
    refuse_running_cycle(cycle=cycle, now=now)
    found = _bill_shards(cycle, now, shard, keep=False)
    return BillRunResult(
        cycle=cycle,
        issued=0,
        carried=found.carried,
        invoices=found.invoices,
        net_fen=found.net_fen,
        vat_fen=found.vat_fen,
        gross_fen=found.gross_fen,
    )


def begun() -> list[date]:
    """Cycles whose run began and did not come to its end, the oldest first."""
    unfinished = BillRun.objects.exclude(state=BillRun.State.DONE).order_by("cycle")
    return list(unfinished.values_list("cycle", flat=True))


def is_at_work() -> bool:
    """Whether a run issues invoices right now; one that is between two shards may not show."""
    with transaction.atomic():
        return not fetch(BILLING_RESTS, {})[0]["rests"]


def is_done(*, cycle: date) -> bool:
    """Whether a run of this cycle came to its end."""
    return BillRun.objects.filter(cycle=cycle, state=BillRun.State.DONE).exists()


def refuse_running_cycle(*, cycle: date, now: datetime) -> None:
    """CycleNotEnded before the cycle's last instant has passed."""
    if now < periods.cycle_end(cycle):
        raise CycleNotEnded(
            f"{cycle:%Y-%m} ends at {periods.cycle_end(cycle).isoformat()}: bill it after that."
        )


def _bill_shards(cycle: date, now: datetime, shard: int, *, keep: bool) -> _Issued:
    assert shard > 0
    issued = _Issued()
    after = 0
    while upto := fetch(SHARD_END, {"after": after, "shard": shard})[0]["upto"]:
        issued += retry_transaction(partial(_in_transaction, cycle, now, after, upto, keep))
        after = upto
    return issued


def _in_transaction(cycle: date, now: datetime, after: int, upto: int, keep: bool) -> _Issued:
    """One shard, committed or (for a preview) rolled back; nothing of it waits without end."""
    with transaction.atomic():
        run(SHARD_LIMITS, {})
        run(FORGET_PLANS, {})
        issued = _bill_shard(cycle, now, after, upto)
        if not keep:
            transaction.set_rollback(True)
    return issued


def _bill_shard(cycle: date, now: datetime, after: int, upto: int) -> _Issued:
    """Bill the accounts with after < id <= upto inside the caller's transaction."""
    run(LOCK_BILLING, {})
    numbers = numbering.hold(now=now)
    about: dict[str, Any] = {
        "cycle": cycle,
        "after": after,
        "upto": upto,
        "category": OVERAGE_CATEGORY,
        "prefix": numbers.prefix,
        "first": numbers.first,
        "digits": numbering.SERIAL_DIGITS,
        "seller_name": settings.SELLER_NAME,
        "seller_tax_number": settings.SELLER_TAX_NUMBER,
        "issued_at": now,
        "due_at": now + timedelta(days=settings.INVOICE_DUE_DAYS),
    }
    about |= fetch(NEW_IDS, {})[0]
    found = fetch(BILL_SHARD, about)[0]
    if found["missing"]:
        raise MissingTaxRate(
            f"No VAT rate for {', '.join(found['missing'])}: "
            "add it to the tax file, load it and run again."
        )
    # Whoever marks overage or bills without the lock would break these; nothing is kept then.
    assert found["written"] == found["owed"] and found["marked"] == found["used"], found
    numbers.take(count=found["invoices"])
    return _Issued(**{name: found[name] for name in _Issued.__dataclass_fields__})


def _result(cycle: date, issued: _Issued) -> BillRunResult:
    totals = Invoice.objects.filter(cycle=cycle, state=Invoice.State.FINAL).aggregate(
        invoices=Count("id"), net=Sum("net_fen"), vat=Sum("vat_fen"), gross=Sum("gross_fen")
    )
    return BillRunResult(
        cycle=cycle,
        issued=issued.invoices,
        carried=issued.carried,
        invoices=totals["invoices"],
        net_fen=totals["net"] or 0,
        vat_fen=totals["vat"] or 0,
        gross_fen=totals["gross"] or 0,
    )
