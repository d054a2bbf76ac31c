"""What lay beyond the buckets, who was blocked, and who was told."""

from typing import Any

from django.contrib import admin
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.decorators import display

from config.admin import ReadOnlyAdmin, link_to

from ..models import BlockChange, CycleOverage, Notice, Overage
from .filters import CycleFilter, ModelFilter, NamingAdmin


class NumberLink:
    """The subscriber behind a plain id."""

    @display(description=_("Subscriber"))
    def number_link(self, row: Any) -> SafeString:
        return link_to("accounts_subscriber", row.subscriber_id, row.number)


@admin.register(Overage)
class OverageAdmin(NumberLink, NamingAdmin, ReadOnlyAdmin):
    list_display = (
        "occurred_at",
        "number_link",
        "model_code",
        "mt",
        "priced",
        "fen_per_million",
        "cycle",
        "billed",
    )
    list_display_links = ("occurred_at",)
    list_filter = (CycleFilter, "priced", ModelFilter)
    search_ids = ("subscriber_id",)
    sortable_by = ()

    @display(description=_("Model"))
    def model_code(self, overage: Any) -> str:
        return str(overage.model_code)

    @display(description=_("Billed"), boolean=True)
    def billed(self, overage: Overage) -> bool | None:
        return overage.invoice_line_id is not None if overage.priced else None


@admin.register(CycleOverage)
class CycleOverageAdmin(NumberLink, NamingAdmin, ReadOnlyAdmin):
    list_display = ("cycle", "number_link", "priced_mt", "uncovered_mt")
    list_filter = (CycleFilter,)
    search_ids = ("subscriber_id",)


@admin.register(BlockChange)
class BlockChangeAdmin(ReadOnlyAdmin):
    """The exhausted feed, newest first: what nodes poll."""

    list_display = ("id", "at", "msisdn", "blocked", "reason")
    list_filter = ("blocked", "reason")
    search_ids = ("id",)


@admin.register(Notice)
class NoticeAdmin(NumberLink, NamingAdmin, ReadOnlyAdmin):
    list_display = ("at", "number_link", "cycle", "percent")
    list_display_links = ("at",)
    list_filter = (CycleFilter, "percent")
    search_ids = ("subscriber_id",)
