"""The portal's pages of money: invoices, buying a pack, payments."""

import uuid
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Account, Subscriber
from accounts.portal import refused, subscriber_required
from config import clock
from config.errors import DomainError
from invoicing import paying, reports
from invoicing.models import Invoice, Payment
from invoicing.money import in_chinese_capitals
from plans import catalogue, ordering
from plans.models import Order, Plan, PlanVersion
from usage.periods import cycle_of

INVOICES_SHOWN = 36
CARD = {Payment.Method.CARD}


def due_panel(subscriber: Subscriber, now: datetime) -> tuple[str, dict[str, Any]]:
    """The home page's reminder of what is to be paid."""
    latest = [reports.view_of(invoice=row) for row in _invoices(subscriber)[:INVOICES_SHOWN]]
    due = [row for row in latest if row.due_fen > 0]
    return "invoicing/due_panel.html", {
        "subscriber": subscriber,
        "due": due,
        "due_fen": sum(row.due_fen for row in due),
        "overdue": any(row.invoice.due_at < now for row in due),
    }


@subscriber_required
@require_safe
def invoices(request: HttpRequest, subscriber: Subscriber) -> HttpResponse:
    """All invoices of the payer, newest first."""
    context = {
        "subscriber": subscriber,
        "rows": [reports.view_of(invoice=row) for row in _invoices(subscriber)[:INVOICES_SHOWN]],
        "company_pays": not _sees_invoices(subscriber),
        "now": clock.now(),
    }
    return render(request, "invoicing/invoices.html", context)


@subscriber_required
@require_safe
def invoice(request: HttpRequest, subscriber: Subscriber, number: str) -> HttpResponse:
    """One invoice with its lines, tax, and what is left to pay."""
    found = get_object_or_404(_invoices(subscriber), number=number)
    standing = reports.view_of(invoice=found)
    context = {
        "subscriber": subscriber,
        "invoice": found,
        "paid_fen": standing.paid_fen,
        "due_fen": standing.due_fen,
        "pending_fen": standing.pending_fen,
        "lines": found.lines.order_by("position"),
        "capitals": in_chinese_capitals(found.gross_fen),
        "methods": _methods(),
        "key": str(uuid.uuid4()),
        "now": clock.now(),
    }
    return render(request, "invoicing/invoice.html", context)


@subscriber_required
@require_POST
def pay_invoice(request: HttpRequest, subscriber: Subscriber, number: str) -> HttpResponse:
    """Start a payment of what is due."""
    found = get_object_or_404(_invoices(subscriber), number=number)
    try:
        payment = paying.start_payment(
            account_id=subscriber.account_id,
            invoice_id=found.pk,
            method=request.POST.get("method", ""),
            key=request.POST.get("key", ""),
            now=clock.now(),
        )
    except DomainError as refusal:
        refused(request, refusal)
        return redirect("portal-invoice", number=number)
    return redirect("portal-payment", payment_id=payment.pk)


@subscriber_required
@require_http_methods(["GET", "HEAD", "POST"])
def buy(request: HttpRequest, subscriber: Subscriber, code: str) -> HttpResponse:
    """Confirm a pack: on the bill, where it is granted at once, or paid first."""
    version = _pack(code)
    if request.method == "POST":
        return _bought(request, subscriber, code)
    context = {
        "subscriber": subscriber,
        "version": version,
        "cycle": cycle_of(clock.now()),
        "methods": _methods(),
        "key": str(uuid.uuid4()),
    }
    return render(request, "invoicing/buy.html", context)


def _bought(request: HttpRequest, subscriber: Subscriber, code: str) -> HttpResponse:
    now, key = clock.now(), request.POST.get("key", "")
    method = request.POST.get("pay", "")
    on_bill = method == Order.Pay.BILL
    try:
        order, _created = ordering.place_order(
            subscriber_id=subscriber.pk,
            plan_code=code,
            pay=Order.Pay.BILL if on_bill else Order.Pay.NOW,
            key=key,
            now=now,
        )
        if not on_bill:
            payment = paying.start_payment(
                account_id=subscriber.account_id,
                order_id=order.pk,
                method=method,
                key=f"{key}:payment",
                now=now,
            )
            return redirect("portal-payment", payment_id=payment.pk)
    except DomainError as refusal:
        refused(request, refusal)
        return redirect("portal-buy", code=code)
    messages.success(request, _("Done. The pack is yours and ready to use."))
    return redirect("portal-home")


@subscriber_required
@require_safe
def payment(request: HttpRequest, subscriber: Subscriber, payment_id: int) -> HttpResponse:
    """How a payment stands, and what the payer does next."""
    # A company's payments are not its members' business, except for what they ordered themselves.
    rows = Payment.objects.filter(account_id=subscriber.account_id)
    if not _sees_invoices(subscriber):
        rows = rows.filter(order__subscriber=subscriber)
    found = get_object_or_404(rows.select_related("invoice", "order__version"), pk=payment_id)
    context = {"subscriber": subscriber, "payment": found, "next_url": _next_url(found)}
    return render(request, "invoicing/payment.html", context)


def _next_url(found: Payment) -> str:
    """The wallet's page, or its code to scan, while the provider answers."""
    if found.method == Payment.Method.OFFLINE:
        return ""
    try:
        step = paying.next_step(payment_id=found.pk)
    except DomainError:
        return ""
    return step.redirect_url or step.qr_url


def _sees_invoices(subscriber: Subscriber) -> bool:
    """A company's invoices are for its staff; a person's are for whoever holds their numbers."""
    return subscriber.account.kind == Account.Kind.PERSON


def _invoices(subscriber: Subscriber) -> QuerySet[Invoice]:
    rows = reports.finalised().filter(account_id=subscriber.account_id)
    rows = rows if _sees_invoices(subscriber) else rows.none()
    return rows.order_by("-cycle", "-id")


def _methods() -> list[tuple[str, str]]:
    """What the portal offers. A card form is a third party's script, so cards are for apps."""
    offered = [Payment.Method(name) for name in paying.offered_methods()]
    return [(method.value, str(method.label)) for method in offered if method not in CARD]


def _pack(code: str) -> PlanVersion:
    try:
        version = catalogue.version_on_sale(code)
    except DomainError as refusal:
        raise Http404(str(refusal)) from refusal
    if version.plan.kind != Plan.Kind.PACK:
        raise Http404("Plans are taken on their own page.")
    return version
