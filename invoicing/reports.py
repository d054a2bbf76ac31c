"""Reads that are shared: what an invoice still asks for. A document never changes; this does."""

from dataclasses import dataclass

from django.db.models import BigIntegerField, OuterRef, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce

from accounts.models import Account, Subscriber

from .models import Invoice, Payment

OPEN, PAID = "open", "paid"


@dataclass(frozen=True)
class PaidState:
    """Fen paid (packs paid before count), still due, and in payments that are under way.

    `state` is "open" or "paid"; whether it is overdue is a comparison of `due_at` with the clock.
    """

    paid_fen: int
    due_fen: int
    pending_fen: int
    state: str


@dataclass(frozen=True)
class InvoiceView:
    """A finalised invoice with what was paid of it."""

    invoice: Invoice
    paid_fen: int
    due_fen: int
    pending_fen: int
    state: str


def paid_state(*, invoice: Invoice) -> PaidState:
    """What was paid of one invoice and what is due, as of now."""
    sums = {
        state: Payment.objects.filter(invoice=invoice, state=state).aggregate(
            fen=Coalesce(Sum("amount_fen"), 0, output_field=BigIntegerField())
        )["fen"]
        for state in (Payment.State.SUCCEEDED, Payment.State.PENDING)
    }
    return _state_of(invoice, sums[Payment.State.SUCCEEDED], sums[Payment.State.PENDING])


def invoices_of(*, account_id: int) -> list[InvoiceView]:
    """The account's finalised invoices, newest cycle first."""
    final = finalised().filter(account_id=account_id).order_by("-cycle", "-id")
    return [view_of(invoice=invoice) for invoice in final]


def visible_to(*, subscriber: Subscriber) -> QuerySet[Invoice]:
    """Finalised invoices that a subscriber may see and pay: those of a person's own account.

    A member of an enterprise sees none, since the invoice tells of every other member.
    """
    return finalised().filter(account_id=subscriber.account_id, account__kind=Account.Kind.PERSON)


def finalised() -> QuerySet[Invoice]:
    """Finalised invoices annotated for view_of, so that a list costs one query."""
    return Invoice.objects.filter(state=Invoice.State.FINAL).annotate(
        succeeded_fen=_paid_by(Payment.State.SUCCEEDED), waiting_fen=_paid_by(Payment.State.PENDING)
    )


def view_of(*, invoice: Invoice) -> InvoiceView:
    """The view of an invoice that came from finalised()."""
    state = _state_of(invoice, getattr(invoice, "succeeded_fen"), getattr(invoice, "waiting_fen"))  # noqa: B009
    return InvoiceView(invoice, state.paid_fen, state.due_fen, state.pending_fen, state.state)


def _paid_by(state: Payment.State) -> Coalesce:
    sums = (
        Payment.objects.filter(invoice=OuterRef("pk"), state=state)
        .order_by()
        .values("invoice")
        .annotate(fen=Sum("amount_fen"))
        .values("fen")
    )
    return Coalesce(Subquery(sums, output_field=BigIntegerField()), Value(0))


def _state_of(invoice: Invoice, succeeded_fen: int, pending_fen: int) -> PaidState:
    paid_fen = invoice.prepaid_fen + succeeded_fen
    due_fen = max(0, invoice.gross_fen - paid_fen)
    return PaidState(paid_fen, due_fen, pending_fen, OPEN if due_fen else PAID)
