"""The portal's home page: what is left, and what was used by day, hour and model."""

from datetime import date, datetime, timedelta
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import pgettext
from django.views.decorators.http import require_safe

from accounts.models import Subscriber
from accounts.portal import PANELS, subscriber_required
from config import clock
from usage import balances, charts, reports
from usage.models import ChargingProfile, InferenceModel
from usage.periods import (
    InvalidPeriod,
    cycle_end,
    cycle_of,
    cycle_start,
    day_end,
    day_of,
    day_start,
    next_cycle,
    parse_cycle,
    parse_day,
    previous_cycle,
)

MONTHS_BACK = 12
TOP_MODELS = 5
PAGE = 50


@subscriber_required
@require_safe
def requests(request: HttpRequest, subscriber: Subscriber) -> HttpResponse:
    """Every request that was counted, newest first, a page at a time."""
    now = clock.now()
    since = cycle_start(previous_cycle(previous_cycle(cycle_of(now))))
    rows = reports.recent_events(
        subscriber_id=subscriber.pk,
        before=_position(request.GET.get("before", "")),
        since=since,
        limit=PAGE + 1,
    )
    more = rows[PAGE - 1] if len(rows) > PAGE else None
    names = dict(InferenceModel.objects.values_list("id", "name"))
    context = {
        "subscriber": subscriber,
        "rows": [(row, names.get(row.model_id, row.model_id)) for row in rows[:PAGE]],
        "since": since,
        "older": f"?before={more.occurred_at.isoformat()}~{more.pk}" if more else "",
    }
    return render(request, "usage/requests.html", context)


def _position(text: str) -> tuple[datetime, int] | None:
    """Where a page begins, as the link to it says: time~id; nothing for the first page."""
    if not text:
        return None
    time, _tilde, number = text.replace(" ", "+").partition("~")
    try:
        position = datetime.fromisoformat(time), int(number)
    except ValueError as error:
        raise Http404("There is no such page.") from error
    if position[0].tzinfo is None or not 0 <= position[1] < 2**63:
        raise Http404("There is no such page.")
    return position


@subscriber_required
@require_safe
def home(request: HttpRequest, subscriber: Subscriber) -> HttpResponse:
    """What is left and what was used; `?month=2026-10` or `?day=2026-10-03` turns the chart."""
    now = clock.now()
    balance = balances.balance(subscriber_id=subscriber.pk, now=now)
    context = {
        "subscriber": subscriber,
        "balance": balance,
        "next_month": cycle_end(cycle_of(now)),
        "panels": [
            render_to_string(template, context, request)
            for template, context in (panel(subscriber, now) for panel in PANELS)
        ],
    }
    context |= _left(subscriber, balance) | _usage(request, subscriber, now)
    return render(request, "usage/home.html", context)


def _left(subscriber: Subscriber, balance: balances.Balance) -> dict[str, Any]:
    """What the big ring shows: the buckets with the pool's share, or the cap of a plan that has
    neither."""
    profile = ChargingProfile.objects.filter(subscriber=subscriber).first()
    payg = balance.beyond == ChargingProfile.Beyond.PAYG
    cap_mt = profile.payg_cap_mt if profile else 0
    only_payg = payg and not balance.buckets and not balance.pool
    below_cap_mt = max(0, cap_mt - balance.priced_overage_mt)
    return {
        "payg": payg,
        "only_payg": only_payg,
        "payg_cap_mt": cap_mt,
        "left_mt": below_cap_mt if only_payg else balance.usable_mt,
        "whole_mt": cap_mt if only_payg else balance.whole_mt,
    }


def _usage(request: HttpRequest, subscriber: Subscriber, now: datetime) -> dict[str, Any]:
    this_month = _series(subscriber, cycle_of(now), "day")
    today = day_of(now)
    used = {
        "used_today_mt": this_month.get(today.isoformat(), {}).get("mt", 0),
        "used_month_mt": sum(row["mt"] for row in this_month.values()),
    }
    try:
        if day := request.GET.get("day"):
            return used | _day_chart(subscriber, parse_day(day), today)
        cycle = parse_cycle(request.GET["month"]) if "month" in request.GET else cycle_of(now)
    except InvalidPeriod as refusal:
        raise Http404(str(refusal)) from refusal
    rows = this_month if cycle == cycle_of(now) else _series(subscriber, cycle, "day")
    return used | _month_chart(subscriber, cycle, today, rows)


def _month_chart(
    subscriber: Subscriber, cycle: date, today: date, rows: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    _check_reach(cycle, today)
    days = [cycle + timedelta(days=n) for n in range((next_cycle(cycle) - cycle).days)]
    places = [
        charts.Place(
            name=_day_name(day),
            mark=str(day.day) if day.day in (1, 8, 15, 22, len(days)) else "",
            now=day == today,
            link=f"?day={day.isoformat()}#usage" if day <= today else "",
        )
        for day in days
    ]
    values = [rows.get(day.isoformat(), {}).get("mt", 0) for day in days]
    before, after = previous_cycle(cycle), next_cycle(cycle)
    return {
        "view": "month",
        # Where the switch to single days leads: today, or the last day of a past month.
        "day_to_show": min(today, days[-1]),
        "cycle": cycle,
        "chart": charts.chart(values=values, places=places),
        "before": f"?month={before:%Y-%m}" if _within_reach(before, today) else "",
        "after": f"?month={after:%Y-%m}" if after <= today else "",
        "models": _models(subscriber, cycle_start(cycle), cycle_end(cycle)),
        "kinds": _kinds(rows),
    }


def _day_chart(subscriber: Subscriber, day: date, today: date) -> dict[str, Any]:
    _check_reach(day.replace(day=1), today)
    if day > today:
        raise Http404("That day has not come yet.")
    start, end = day_start(day), day_end(day)
    found = reports.usage_series(subscriber_id=subscriber.pk, start=start, end=end, group_by="hour")
    # Keys are billing-zone hours, as "2026-10-03T14".
    rows = {str(row["key"]): row for row in found}
    by_hour = {int(key[11:13]): row for key, row in rows.items()}
    places = [
        charts.Place(
            name=f"{hour:02}:00–{hour:02}:59", mark=f"{hour:02}" if hour % 6 == 0 else "", now=False
        )
        for hour in range(24)
    ]
    values = [by_hour.get(hour, {}).get("mt", 0) for hour in range(24)]
    before, after = day - timedelta(days=1), day + timedelta(days=1)
    reachable = _within_reach(before.replace(day=1), today)
    return {
        "view": "day",
        "day": day,
        "day_to_show": day,
        "cycle": day.replace(day=1),
        "chart": charts.chart(values=values, places=places),
        "before": f"?day={before.isoformat()}" if reachable else "",
        "after": f"?day={after.isoformat()}" if after <= today else "",
        "models": _models(subscriber, start, end),
        "kinds": _kinds(rows),
    }


def _series(subscriber: Subscriber, cycle: date, group_by: str) -> dict[str, dict[str, Any]]:
    rows = reports.usage_series(
        subscriber_id=subscriber.pk,
        start=cycle_start(cycle),
        end=cycle_end(cycle),
        group_by=group_by,
    )
    return {str(row["key"]): row for row in rows}


def _models(subscriber: Subscriber, start: datetime, end: datetime) -> list[dict[str, Any]]:
    rows = reports.usage_series(subscriber_id=subscriber.pk, start=start, end=end, group_by="model")
    return sorted(rows, key=lambda row: (-row["mt"], row["key"]))[:TOP_MODELS]


def _kinds(rows: dict[str, dict[str, Any]]) -> list[charts.Share]:
    names = [
        (_("Input"), "input_tokens"),
        (_("Cached input"), "cached_tokens"),
        (_("Output"), "output_tokens"),
        (_("Reasoning"), "reasoning_tokens"),
    ]
    return charts.shares(
        counts=[(name, sum(row[field] for row in rows.values())) for name, field in names]
    )


def _within_reach(cycle: date, today: date) -> bool:
    months = (today.year - cycle.year) * 12 + today.month - cycle.month
    return 0 <= months <= MONTHS_BACK


def _check_reach(cycle: date, today: date) -> None:
    if not _within_reach(cycle, today):
        raise Http404(f"Usage is shown for this month and the {MONTHS_BACK} before it.")


def _day_name(day: date) -> str:
    # Translators: PHP-style date format, "Tue 24 November".
    return date_format(day, pgettext("day of a chart", "D j F"))
