"""Usage events: one day at a time, since a day is a partition and nobody counts the table."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from config.admin import ReadOnlyAdmin, display
from config.columns import link_to
from config.formatting import exact_tokens

from ..models import LedgerEntry, Overage, UsageEvent
from .filters import BatchFilter, DailyAdmin, DayFilter, ModelFilter, NamingAdmin, NodeFilter


@admin.register(UsageEvent)
class UsageEventAdmin(DailyAdmin, NamingAdmin, ReadOnlyAdmin):
    """Search: a subscriber's number or id, an event's source, its id, or both as source/id."""

    list_display = (
        "occurred_at",
        "subscriber_id",
        "model_id",
        "input_tokens",
        "cached_tokens",
        "output_tokens",
        "reasoning_tokens",
        "mt",
        "event_id",
        "late_label",
    )
    list_display_links = ("occurred_at",)
    list_filter = (DayFilter, ModelFilter, NodeFilter, BatchFilter, "late")
    search_texts = ("source", "event_id")
    search_ids = ("subscriber_id",)
    search_help_text = _("A phone number, a source, an event's id, or source/id.")
    ordering = ("-occurred_at",)
    sortable_by = ("occurred_at",)
    readonly_fields = ("charged",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        source, slash, event_id = search_term.strip().rpartition("/")
        if slash:
            return queryset.filter(source=source, event_id=event_id), False
        found: tuple[QuerySet[Any], bool] = super().get_search_results(
            request, queryset, search_term
        )
        return found

    @display(description=_("Late"), label="warning")
    def late_label(self, event: UsageEvent) -> str:
        return gettext("late") if event.late else ""

    @display(description=_("Charged to"))
    def charged(self, event: UsageEvent) -> SafeString:
        """Every token of the event: the buckets it was debited from, and what lay beyond them."""
        rows: list[tuple[str, object]] = [
            (
                exact_tokens(-entry.amount_mt),
                link_to("usage_bucket", entry.bucket_id, f"{_('bucket')} {entry.bucket_id}"),
            )
            for entry in LedgerEntry.objects.filter(event_id=event.pk).order_by("id")
        ]
        rows += [
            (exact_tokens(beyond.mt), _("priced overage") if beyond.priced else _("uncovered"))
            for beyond in Overage.objects.filter(
                subscriber_id=event.subscriber_id, event_id=event.pk
            ).order_by("id")
        ]
        return format_html_join("", "<div>{}: {}</div>", rows)
