"""The portal's pages of plans and packs: what is held, what is on sale, subscribing."""

from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from accounts.models import Subscriber
from accounts.portal import refused, subscriber_required
from config import clock
from config.errors import DomainError
from plans import catalogue, pooling, reports, subscribing
from plans.models import Plan, PlanVersion
from plans.proration import first_month
from usage.periods import cycle_end, cycle_of, day_of

RECENT_ORDERS = 10


def packs_panel(subscriber: Subscriber, now: datetime) -> tuple[str, dict[str, Any]]:
    """The home page's panel of packs on sale."""
    return "plans/packs_panel.html", {
        "subscriber": subscriber,
        "packs": pooling.packs_for(subscriber, reports.offers(now=now)["packs"], now=now),
        "can_buy": subscriber.state == Subscriber.State.ACTIVE,
    }


@subscriber_required
@require_safe
def plans(request: HttpRequest, subscriber: Subscriber) -> HttpResponse:
    """The plan held now, everything on sale, and the latest orders."""
    now = clock.now()
    held = reports.subscriptions_of(subscriber_id=subscriber.pk).exclude(ends_at__lte=now)
    offers = reports.offers(now=now)
    context = {
        "subscriber": subscriber,
        "held": list(held),
        "held_plans": {subscription.version.plan_id for subscription in held},
        "offers": offers,
        "personal": [plan for plan in offers["plans"] if plan.audience == "personal"],
        "developer": [plan for plan in offers["plans"] if plan.audience != "personal"],
        "packs": pooling.packs_for(subscriber, offers["packs"], now=now),
        "can_buy": subscriber.state == Subscriber.State.ACTIVE,
        "orders": reports.orders_of(subscriber_id=subscriber.pk)[:RECENT_ORDERS],
    }
    return render(request, "plans/plans.html", context)


@subscriber_required
@require_http_methods(["GET", "HEAD", "POST"])
def subscribe(request: HttpRequest, subscriber: Subscriber, code: str) -> HttpResponse:
    """What a plan costs from today and from next month; POST takes it."""
    now = clock.now()
    version = _on_sale(code)
    if version.plan.kind == Plan.Kind.PACK:
        raise Http404("Packs are bought on their own page.")
    next_month = cycle_end(cycle_of(now))
    if request.method == "POST":
        later = request.POST.get("start") == "next"
        try:
            subscribing.subscribe(
                subscriber_id=subscriber.pk,
                plan_code=code,
                starts_at=next_month if later else now,
                actor=f"portal:{subscriber.pk}",
                now=now,
            )
        except DomainError as refusal:
            refused(request, refusal)
            return redirect("portal-plans")
        messages.success(request, _("Done. The plan is yours."))
        return redirect("portal-plans" if later else "portal-home")
    context = {
        "subscriber": subscriber,
        "version": version,
        "stub": first_month(price_fen=version.price_fen, tokens=version.tokens, start=day_of(now)),
        "next_month": next_month,
    }
    return render(request, "plans/subscribe.html", context)


def _on_sale(code: str) -> PlanVersion:
    try:
        return catalogue.version_on_sale(code)
    except DomainError as refusal:
        raise Http404(str(refusal)) from refusal
