"""Charging profiles, buckets and the ledger: looked at only. A correction is a further entry."""

from typing import Any

from django.contrib import admin
from django.db.models import Max, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.contrib.filters.admin import RangeDateTimeFilter

from accounts.admin.subscribers import SubscriberAdmin
from accounts.models import Subscriber
from config.admin import ExactSearch, ReadOnlyAdmin, ReadOnlyInline, display
from config.columns import link_to
from config.formatting import exact_tokens

from ..batches import EVENTS_PER_BATCH
from ..models import Bucket, ChargingProfile, LedgerEntry, UsageBatch
from .filters import NamingAdmin, holders
from .granting import give_tokens
from .movements import BucketButtons, IncomingInline, MovementInline

# How many of the newest batches the ledger shows before anything is searched.
NEWEST_BATCHES = 20
# And of how many of a subscriber's buckets it shows the entries.
MOST_BUCKETS = 1_000


class BucketAmounts:
    """The amounts of a bucket in standard tokens."""

    @display(description=_("Granted"))
    def granted(self, bucket: Bucket) -> str:
        return exact_tokens(bucket.granted_mt + bucket.adjusted_mt)

    @display(description=_("Open"), boolean=True)
    def open(self, bucket: Bucket) -> bool:
        return bucket.closed_at is None


class ProfileInline(ReadOnlyInline):
    model = ChargingProfile
    ordering = ("subscriber_id",)
    fields = ("blocked", "beyond", "payg_fen_per_million", "payg_cap_mt", "noticed_percent")


class BucketInline(BucketAmounts, ReadOnlyInline):
    model = Bucket
    show_change_link = True
    fields = ("name", "kind", "granted", "remaining_mt", "reserved_mt", "valid_from", "valid_until")
    readonly_fields = ("granted",)


SubscriberAdmin.inlines += [ProfileInline, BucketInline]
SubscriberAdmin.offer(give_tokens, fits=lambda row: row.state != Subscriber.State.TERMINATED)


@admin.register(ChargingProfile)
class ChargingProfileAdmin(ReadOnlyAdmin):
    list_display = ("subscriber", "state", "beyond", "blocked_label", "noticed_percent")
    list_filter = ("blocked", "state", "beyond")
    list_select_related = ("subscriber",)
    search_phones = ("subscriber__msisdn",)
    search_ids = ("subscriber_id", "account_id")

    @display(
        description=_("Blocked"),
        label={
            "": "success",
            "quota_exhausted": "warning",
            "suspended": "warning",
            "terminated": "danger",
        },
    )
    def blocked_label(self, profile: ChargingProfile) -> tuple[str, str]:
        return profile.blocked, profile.get_blocked_display()


@admin.register(Bucket)
class BucketAdmin(BucketAmounts, BucketButtons):
    list_display = (
        "id",
        "owner",
        "name",
        "kind",
        "granted",
        "remaining_mt",
        "reserved_mt",
        "valid_from",
        "valid_until",
        "open",
    )
    list_filter = ("kind", ("valid_until", RangeDateTimeFilter))
    list_select_related = ("subscriber", "pool")
    search_texts = ("key",)
    search_phones = ("subscriber__msisdn",)
    search_ids = ("id", "subscriber_id", "pool_id")
    inlines = (MovementInline, IncomingInline)

    @display(description=_("Owner"))
    def owner(self, bucket: Bucket) -> SafeString:
        if bucket.pool is not None:
            return link_to("usage_pool", bucket.pool_id, bucket.pool)
        return link_to("accounts_subscriber", bucket.subscriber_id, bucket.subscriber)


@admin.register(LedgerEntry)
class LedgerEntryAdmin(NamingAdmin, ReadOnlyAdmin):
    """A bucket's entries are one index read; without a search the newest batches' debits show.

    Search: a subscriber's number, a bucket's id, or an event's id.
    """

    list_display = (
        "recorded_at",
        "subscriber_id",
        "bucket_id",
        "kind_label",
        "amount_mt",
        "event_id",
        "actor",
        "reason",
    )
    list_display_links = ("recorded_at",)
    list_filter = ("kind",)
    search_ids = ("bucket_id", "event_id")
    ordering = ("-id",)
    sortable_by = ()
    list_before_template = "admin/usage/ledger_bar.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        listed = request.resolver_match and request.resolver_match.url_name == (
            "usage_ledgerentry_changelist"
        )
        if not listed or request.GET.get("q", "").strip():
            return rows
        newest = UsageBatch.objects.aggregate(id=Max("id"))["id"] or 0
        return rows.filter(event_id__gte=(newest - NEWEST_BATCHES) * EVENTS_PER_BATCH)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        buckets = Bucket.objects.filter(subscriber_id__in=holders(search_term))
        ids = list(buckets.order_by("-id").values_list("id", flat=True)[:MOST_BUCKETS])
        if ids:
            return queryset.filter(bucket_id__in=ids), False
        return ExactSearch.get_search_results(self, request, queryset, search_term)

    @display(
        description=_("Kind"),
        label={"grant": "success", "debit": "info", "expiry": "warning", "void": "danger"},
    )
    def kind_label(self, entry: LedgerEntry) -> tuple[str, str]:
        return entry.kind, entry.get_kind_display()
