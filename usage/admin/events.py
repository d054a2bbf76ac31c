"""Usage events: one day at a time, since a day is a partition and nobody counts the table."""

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.decorators import display

from accounts.models import NumberAssignment
from config.admin import ReadOnlyAdmin, is_id, link_to, phone_spellings
from config.formatting import exact_tokens

from ..models import LedgerEntry, Overage, UsageEvent
from .filters import BatchFilter, DailyAdmin, DayFilter, ModelFilter, NamingAdmin, NodeFilter


@admin.register(UsageEvent)
class UsageEventAdmin(DailyAdmin, NamingAdmin, ReadOnlyAdmin):
    """Search: a subscriber's number or id, an event's source, its id, or both as source/id."""

    list_display = (
        "occurred_at",
        "subscriber_link",
        "model_code",
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
    search_help_text = _("A phone number, a source, an event's id, or source/id.")
    ordering = ("-occurred_at",)
    sortable_by = ("occurred_at",)
    readonly_fields = ("charged",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        holders = NumberAssignment.objects.filter(msisdn__in=phone_spellings(term))
        ids = set(holders.values_list("subscriber_id", flat=True))
        if ids:
            return queryset.filter(subscriber_id__in=ids), False
        found = Q(source=term) | Q(event_id=term)
        if is_id(term):
            found |= Q(subscriber_id=int(term))
        source, slash, event_id = term.rpartition("/")
        if slash:
            found |= Q(source=source, event_id=event_id)
        return queryset.filter(found), False

    @display(description=_("Subscriber"))
    def subscriber_link(self, event: Any) -> SafeString:
        return link_to("accounts_subscriber", event.subscriber_id, event.number)

    @display(description=_("Model"))
    def model_code(self, event: Any) -> str:
        return str(event.model_code)

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
