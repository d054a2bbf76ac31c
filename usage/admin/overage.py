"""What lay beyond the buckets, who was blocked, and who was told."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from config.admin import ReadOnlyAdmin, display

from ..models import BlockChange, CycleOverage, Notice, Overage
from .filters import CycleFilter, ModelFilter, NamingAdmin


@admin.register(Overage)
class OverageAdmin(NamingAdmin, ReadOnlyAdmin):
    list_display = (
        "occurred_at",
        "subscriber_id",
        "model_id",
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

    @display(description=_("Billed"), boolean=True)
    def billed(self, overage: Overage) -> bool | None:
        return overage.invoice_line_id is not None if overage.priced else None


@admin.register(CycleOverage)
class CycleOverageAdmin(NamingAdmin, ReadOnlyAdmin):
    list_display = ("cycle", "subscriber_id", "priced_mt", "uncovered_mt")
    list_filter = (CycleFilter,)
    search_ids = ("subscriber_id",)


@admin.register(BlockChange)
class BlockChangeAdmin(NamingAdmin, ReadOnlyAdmin):
    """The exhausted feed, newest first: what nodes poll."""

    list_display = ("id", "at", "msisdn", "blocked", "reason")
    list_filter = ("blocked", "reason")
    search_ids = ("subscriber_id",)


@admin.register(Notice)
class NoticeAdmin(NamingAdmin, ReadOnlyAdmin):
    list_display = ("at", "subscriber_id", "cycle", "percent")
    list_display_links = ("at",)
    list_filter = (CycleFilter, "percent")
    search_ids = ("subscriber_id",)
