"""The first page of the staff site: a few numbers that say whether all is well, with their links.

Each card is read only for people who may see what it counts, and kept for half a minute, so that
a screen on the wall costs the database next to nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.db.models import Exists, F, OuterRef, QuerySet, Sum
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import get_language, gettext

from config import clock
from config.formatting import grouped, percent, short_tokens
from invoicing.models import AssuranceResult, Invoice, Payment
from usage.models import ChargingProfile, QuarantinedEvent, UsageTally
from usage.periods import day_of

KEPT_SECONDS = 30
CHART_KEPT_SECONDS = 600  # past days hardly move
CHART_DAYS = 31
MOST = 10_000


@dataclass(frozen=True)
class Card:
    """One number; `tone` is "" (plain), "good" or "bad"."""

    title: str
    value: str
    note: str
    link: str
    tone: str = ""


def fill(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """The site's dashboard hook: adds the cards and the chart this person may see."""
    now = clock.now()
    language = get_language() or ""
    may = request.user.has_perm
    cards: list[Card] = []
    if may("usage.view_usagebatch"):
        cards += _usage_cards(now, language)
        context["chart"] = _kept("days", lambda: _days(day_of(now)), CHART_KEPT_SECONDS)
    if may("usage.view_chargingprofile"):
        cards.append(_exhausted())
    if may("usage.view_quarantinedevent"):
        cards.append(_quarantine())
    if may("invoicing.view_invoice"):
        cards.append(_unpaid())
    if may("invoicing.view_assuranceresult"):
        cards.append(_proof())
    return context | {"cards": cards, "title": gettext("Overview")}


def _usage_cards(now: datetime, language: str) -> list[Card]:
    today = day_of(now)
    events, mt = _kept("today", lambda: _sums(today))
    batches = reverse("admin:usage_usagebatch_changelist")
    address = f"{batches}?day={today.isoformat()}"
    return [
        Card(gettext("Events accepted today"), grouped(events), gettext("of use today"), address),
        Card(
            gettext("Tokens accepted today"),
            short_tokens(mt, language),
            gettext("standard"),
            address,
        ),
    ]


def _exhausted() -> Card:
    profiles = ChargingProfile.objects.filter(blocked=ChargingProfile.Block.EXHAUSTED)
    return Card(
        gettext("Exhausted subscribers"),
        _count("exhausted", profiles),
        gettext("blocked until a bucket is granted"),
        reverse("admin:usage_chargingprofile_changelist") + "?blocked__exact=quota_exhausted",
    )


def _quarantine() -> Card:
    waiting = QuarantinedEvent.objects.filter(state=QuarantinedEvent.State.OPEN)
    number = _count("quarantine", waiting)
    return Card(
        gettext("Open in quarantine"),
        number,
        gettext("refused or conflicting events"),
        reverse("admin:usage_quarantinedevent_changelist") + "?state=open",
        "" if number == "0" else "bad",
    )


def _unpaid() -> Card:
    paid = Payment.objects.filter(invoice=OuterRef("pk"), state=Payment.State.SUCCEEDED)
    unpaid = Invoice.objects.filter(
        ~Exists(paid), state=Invoice.State.FINAL, gross_fen__gt=F("prepaid_fen")
    )
    return Card(
        gettext("Unpaid invoices"),
        _count("unpaid", unpaid),
        gettext("issued and not yet paid"),
        reverse("admin:invoicing_invoice_changelist"),
    )


def _proof() -> Card:
    last = AssuranceResult.objects.order_by("-made_at").first()
    address = reverse("admin:invoicing_assuranceresult_changelist")
    if last is None:
        return Card(gettext("Last proof"), "–", gettext("none is stored yet"), address)
    verdict = gettext("proven") if last.proven else gettext("differs")
    period = f"{day_of(last.period_start)} – {day_of(last.period_end)}"
    return Card(gettext("Last proof"), verdict, period, address, "good" if last.proven else "bad")


def _sums(day: date) -> tuple[int, int]:
    sums = UsageTally.objects.filter(day=day).aggregate(
        events=Sum("accepted"), mt=Sum("accepted_mt")
    )
    return sums["events"] or 0, sums["mt"] or 0


def _days(today: date) -> list[dict[str, Any]]:
    """The last days with their accepted tokens and the height of their bars in percent."""
    days = [today - timedelta(days=back) for back in reversed(range(CHART_DAYS))]
    rows = UsageTally.objects.filter(day__gte=days[0], day__lte=today)
    by_day = {row["day"]: row["mt"] for row in rows.values("day").annotate(mt=Sum("accepted_mt"))}
    highest = max(by_day.values(), default=0)
    return [
        {"day": day, "mt": by_day.get(day, 0), "height": percent(by_day.get(day, 0), highest)}
        for day in days
    ]


def _count(name: str, rows: QuerySet[Any]) -> str:
    number: int = _kept(name, lambda: rows.order_by()[: MOST + 1].count())
    return f"{MOST:,}+" if number > MOST else grouped(number)


def _kept(name: str, read: Callable[[], Any], seconds: int = KEPT_SECONDS) -> Any:
    return cache.get_or_set(f"staff-dashboard:{name}", read, seconds)
