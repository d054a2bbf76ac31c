"""Quota sessions and limits: what is held for whom now, and what was answered."""

from typing import Any

from django.contrib import admin
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from config.admin import ReadOnlyAdmin, display
from config.columns import link_to
from config.formatting import exact_tokens, grouped

from ..models import QuotaSession, UsageLimit
from .filters import NamingAdmin, NodeFilter


@admin.register(QuotaSession)
class QuotaSessionAdmin(NamingAdmin, ReadOnlyAdmin):
    """Newest first. Search: a session's ref or name, its subject, or a subscriber's id."""

    list_display = (
        "created_at",
        "ref",
        "node_label",
        "subject",
        "model",
        "state_label",
        "granted_mt",
        "supervised_until",
    )
    list_display_links = ("created_at", "ref")
    list_filter = ("state", NodeFilter)
    search_texts = ("ref", "session", "subject")
    search_ids = ("subscriber_id",)
    exclude = ("hold_bucket_ids", "hold_mts")
    readonly_fields = ("holds",)

    @display(description=_("Node"))
    def node_label(self, session: Any) -> str:
        return str(session.node_name)

    @display(
        description=_("State"),
        label={"open": "success", "idle": "info", "expired": "warning", "released": ""},
    )
    def state_label(self, session: QuotaSession) -> tuple[str, str]:
        return session.state, session.get_state_display()

    @display(description=_("Held of buckets"))
    def holds(self, session: QuotaSession) -> str:
        held = zip(session.hold_bucket_ids, session.hold_mts, strict=True)
        return ", ".join(f"#{bucket_id}: {exact_tokens(mt)}" for bucket_id, mt in held) or "-"


@admin.register(UsageLimit)
class UsageLimitAdmin(ReadOnlyAdmin):
    list_display = ("subscriber_link", "key_label", "window", "amount_label", "counted")
    list_filter = ("window", "unit")
    list_select_related = ("subscriber", "api_key")
    search_phones = ("subscriber__msisdn",)
    search_ids = ("subscriber_id",)

    @display(description=_("Subscriber"))
    def subscriber_link(self, limit: UsageLimit) -> SafeString:
        return link_to("accounts_subscriber", limit.subscriber_id, limit.subscriber)

    @display(description=_("API key"))
    def key_label(self, limit: UsageLimit) -> str:
        return limit.api_key.public_id if limit.api_key else "-"

    @display(description=_("At most"))
    def amount_label(self, limit: UsageLimit) -> str:
        if limit.unit == UsageLimit.Unit.MT:
            return str(_("%(amount)s tokens") % {"amount": exact_tokens(limit.amount)})
        return str(_("%(amount)s requests") % {"amount": grouped(limit.amount)})
