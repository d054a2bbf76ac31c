"""The bill of one account the usual way: a loop over ORM objects in one transaction."""

from collections import defaultdict
from datetime import date, datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Max, Q

from accounts.models import Account
from invoicing.models import Invoice, InvoiceLine, InvoiceSeries, TaxRate
from plans.models import Charge
from usage.models import InferenceModel, Overage
from usage.periods import next_cycle

SERIES = 99  # numbers of its own, so that the two sides never draw the same one


def bill(accounts: list[Account], *, cycle: date, now: datetime) -> int:
    """Issue an invoice for each of these accounts; returns how many."""
    for account in accounts:
        bill_account(account, cycle=cycle, now=now)
    return len(accounts)


@transaction.atomic
def bill_account(account: Account, *, cycle: date, now: datetime) -> Invoice:
    """One invoice with a line per charge, and per model and price of the overage."""
    invoice = Invoice.objects.create(
        account=account,
        cycle=cycle,
        state=Invoice.State.DRAFT,
        number=draw_number(now),
        buyer_name=account.name,
        buyer_tax_number=account.tax_number,
        seller_name=settings.SELLER_NAME,
        seller_tax_number=settings.SELLER_TAX_NUMBER,
        net_fen=0,
        vat_fen=0,
        gross_fen=0,
        issued_at=now,
        due_at=now + timedelta(days=settings.INVOICE_DUE_DAYS),
    )
    charges = Charge.objects.filter(account=account, cycle__lte=cycle, invoice_line__isnull=True)
    for charge in charges.select_related("subscriber").order_by("kind", "id"):
        add_line(
            invoice,
            kind=charge.kind,
            charge=charge,
            name=charge.name,
            name_en=charge.name_en,
            msisdn=charge.subscriber.msisdn,
            usage_cycle=charge.cycle,
            tax_category=charge.tax_category,
            gross_fen=charge.amount_fen,
        )
    bill_overage(invoice, account, cycle)
    lines = list(invoice.lines.all())
    invoice.net_fen = sum(line.net_fen for line in lines)
    invoice.vat_fen = sum(line.vat_fen for line in lines)
    invoice.gross_fen = sum(line.gross_fen for line in lines)
    invoice.state = Invoice.State.FINAL
    invoice.save()
    return invoice


def bill_overage(invoice: Invoice, account: Account, cycle: date) -> None:
    """One line per model and price; every row is told which line bills it."""
    groups: dict[tuple[int, int, date], list[Overage]] = defaultdict(list)
    for row in Overage.objects.filter(
        account_id=account.pk, cycle__lte=cycle, priced=True, invoice_line_id__isnull=True
    ):
        groups[row.model_id, row.fen_per_million, row.cycle].append(row)
    for (model_id, fen_per_million, of), rows in sorted(groups.items()):
        model = InferenceModel.objects.get(id=model_id)
        mt = sum(row.mt for row in rows)
        line = add_line(
            invoice,
            kind=InvoiceLine.Kind.OVERAGE,
            name=model.name,
            name_en=model.name,
            model_code=model.code,
            usage_cycle=of,
            quantity_mt=mt,
            fen_per_million=fen_per_million,
            tax_category="token_package",
            gross_fen=(2 * mt * fen_per_million + 10**9) // (2 * 10**9),
        )
        for row in rows:
            row.invoice_line_id = line.pk
            row.save(update_fields=["invoice_line_id"])


def add_line(invoice: Invoice, *, gross_fen: int, **about: object) -> InvoiceLine:
    """A line with its tax, which lies inside the price."""
    cycle = about["usage_cycle"]
    assert isinstance(cycle, date)
    day = next_cycle(cycle) - timedelta(days=1)
    rate = TaxRate.objects.filter(
        Q(valid_until=None) | Q(valid_until__gt=day),
        category=about["tax_category"],
        valid_from__lte=day,
    ).get()
    whole = 10_000 + rate.rate_bp
    vat_fen = (2 * gross_fen * rate.rate_bp + whole) // (2 * whole)
    last = invoice.lines.aggregate(last=Max("position"))["last"] or 0
    return InvoiceLine.objects.create(
        invoice=invoice,
        position=last + 1,
        rate_bp=rate.rate_bp,
        net_fen=gross_fen - vat_fen,
        vat_fen=vat_fen,
        gross_fen=gross_fen,
        **about,
    )


def draw_number(now: datetime) -> str:
    """The next gap-free number of the series; its row is locked until the invoice is there."""
    year = now.year % 100
    InvoiceSeries.objects.get_or_create(year=year, region=SERIES, channel=1)
    series = InvoiceSeries.objects.select_for_update().get(year=year, region=SERIES, channel=1)
    series.last_number += 1
    series.save(update_fields=["last_number"])
    return f"{year:02}{SERIES:02}1{series.last_number:015}"
