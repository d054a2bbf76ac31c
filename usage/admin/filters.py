"""Filters that an index or a partition answers, and the names behind plain ids."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from django import forms
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.views.main import ChangeList
from django.db.models import F, Model, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import DropdownFilter, TextFilter
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.models import NumberAssignment, Subscriber
from config import clock
from config.admin import phone_spellings

from ..batches import EVENTS_PER_BATCH
from ..models import InferenceModel, Node, UsageTally
from ..periods import InvalidPeriod, day_end, day_of, day_start, parse_cycle, parse_day


class DayForm(forms.Form):
    """One input of type date, named as the filter's parameter."""

    day = forms.DateField(
        label=_("Day (Asia/Shanghai)"),
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
    )


class DayFilter(SimpleListFilter):
    """One billing-zone day of `instant`, so that a page reads one partition of a large table."""

    title = _("day")
    parameter_name = "day"
    template = "unfold/filters/filters_field.html"
    instant = "occurred_at"

    def has_output(self) -> bool:
        return True

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return []

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        yield {"form": DayForm({"day": self.value()})}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        day = day_in(request)
        if day is None:
            return queryset
        return queryset.filter(
            **{f"{self.instant}__gte": day_start(day), f"{self.instant}__lt": day_end(day)}
        )


class ReceivedDayFilter(DayFilter):
    instant = "received_at"


class RecordedDayFilter(DayFilter):
    instant = "recorded_at"


class NodeFilter(DropdownFilter):  # type: ignore[misc]
    title = _("node")
    parameter_name = "node"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[int, str]]:
        return list(Node.objects.order_by("name").values_list("id", "name"))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(node_id=self.value()) if is_number(self.value()) else queryset


class ModelFilter(DropdownFilter):  # type: ignore[misc]
    title = _("model")
    parameter_name = "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[int, str]]:
        return list(InferenceModel.objects.order_by("code").values_list("id", "code"))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(model_id=self.value()) if is_number(self.value()) else queryset


class CycleFilter(DropdownFilter):  # type: ignore[misc]
    """The last thirteen months; an older one by its address (?cycle=2025-01)."""

    title = _("cycle")
    parameter_name = "cycle"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        month = day_of(clock.now()).replace(day=1)
        months = [month]
        for _step in range(12):
            month = (month - timedelta(days=1)).replace(day=1)
            months.append(month)
        return [(f"{first:%Y-%m}", f"{first:%Y-%m}") for first in months]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        try:
            return queryset.filter(cycle=parse_cycle(self.value())) if self.value() else queryset
        except InvalidPeriod:
            return queryset.none()


class BatchFilter(TextFilter):  # type: ignore[misc]
    """The events of one batch: an event's id begins with its batch's, which a BRIN index finds."""

    title = _("batch")
    parameter_name = "batch"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not is_number(self.value()):
            return queryset
        first = int(self.value()) * EVENTS_PER_BATCH
        return queryset.filter(id__gte=first, id__lt=first + EVENTS_PER_BATCH)


class DailyAdmin(ModelAdmin):  # type: ignore[misc]
    """Shows one day, the newest at first, with steps to the days beside it."""

    list_before_template = "admin/usage/day_bar.html"

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        day = day_in(request)
        if day is None:
            return redirect(f"{request.path}?{_query(request, newest_day())}")
        context = {
            "day": day,
            "day_before": _query(request, day - timedelta(days=1)),
            "day_after": _query(request, day + timedelta(days=1)),
        }
        response: HttpResponse = super().changelist_view(request, context | (extra_context or {}))
        return response


def _query(request: HttpRequest, day: date) -> str:
    query = request.GET.copy()
    query.pop("p", None)
    query["day"] = day.isoformat()
    return query.urlencode()


class HolderSearch(ModelAdmin):  # type: ignore[misc]
    """Rows of a subscriber are found by any number that the subscriber holds or held."""

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        ids = holders(search_term) if "subscriber_id" in _columns(self.model) else []
        if ids:
            return queryset.filter(subscriber_id__in=ids), False
        found: tuple[QuerySet[Any], bool] = super().get_search_results(
            request, queryset, search_term
        )
        return found


class NamingAdmin(HolderSearch):
    """Rows of the hot tables hold plain ids; a page of them is named by correlated subqueries.

    PostgreSQL evaluates these after the LIMIT, so a page of fifty rows costs fifty index reads.
    """

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        fields = _columns(self.model)
        if "subscriber_id" in fields:
            numbers = Subscriber.objects.filter(id=OuterRef("subscriber_id"))
            rows = rows.annotate(number=Subquery(numbers.values("msisdn")[:1]))
        if "model_id" in fields:
            models = InferenceModel.objects.filter(id=OuterRef("model_id"))
            rows = rows.annotate(model_code=Subquery(models.values("code")[:1]))
        if "node_id" in fields:
            nodes = Node.objects.filter(id=OuterRef("node_id"))
            rows = rows.annotate(node_name=Subquery(nodes.values("name")[:1]))
        return rows


def holders(term: str) -> list[int]:
    """The subscribers who hold or held the number that was typed, if it is one."""
    held = NumberAssignment.objects.filter(msisdn__in=phone_spellings(term))
    return sorted(set(held.values_list("subscriber_id", flat=True))) if term.strip() else []


def _columns(model: type[Model]) -> set[str]:
    return {field.attname for field in model._meta.concrete_fields}


def day_in(request: HttpRequest) -> date | None:
    """The day that the address names, or None."""
    try:
        return parse_day(request.GET.get("day", ""))
    except InvalidPeriod:
        return None


def newest_day() -> date:
    """The latest day with accepted usage, else today: where someone who just looks wants to be."""
    newest = (
        UsageTally.objects.filter(accepted__gt=0)
        .order_by(F("day").desc())
        .values_list("day", flat=True)
        .first()
    )
    return newest or day_of(clock.now())


def is_number(value: str | None) -> bool:
    """Whether a filter's value can be a row's id."""
    return value is not None and value.isascii() and value.isdecimal() and len(value) <= 18
