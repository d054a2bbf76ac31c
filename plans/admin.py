"""What was sold, to look at: the catalogue comes from its reviewed file, sales from activities."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from accounts.admin.subscribers import SubscriberAdmin
from config.admin import ReadOnlyAdmin, ReadOnlyInline, display
from usage.admin.filters import CycleFilter

from .models import Charge, Order, Plan, PlanVersion, Subscription


class VersionInline(ReadOnlyInline):
    model = PlanVersion
    show_change_link = True
    ordering = ("-version",)
    fields = (
        "version",
        "name",
        "price_fen",
        "tokens",
        "validity_days",
        "beyond",
        "pool_kind",
        "on_sale",
    )


@admin.register(Plan)
class PlanAdmin(ReadOnlyAdmin):
    """Change the catalogue file and load it: a changed plan becomes a further version."""

    list_display = ("code", "kind")
    list_filter = ("kind",)
    search_texts = ("code",)
    ordering = ("code",)
    inlines = (VersionInline,)


@admin.register(PlanVersion)
class PlanVersionAdmin(ReadOnlyAdmin):
    list_display = (
        "plan",
        "version",
        "name",
        "audience",
        "price_fen",
        "tokens",
        "beyond",
        "pool_kind",
        "on_sale",
        "loaded_at",
    )
    list_filter = ("on_sale", "audience", "plan__kind", "pool_kind")
    list_select_related = ("plan",)
    search_texts = ("plan__code", "name", "name_en")
    ordering = ("plan__code", "-version")


class SubscriptionInline(ReadOnlyInline):
    model = Subscription
    fields = ("version", "price_fen", "tokens", "pool", "starts_at", "ends_at", "renews_at")


SubscriberAdmin.inlines.insert(0, SubscriptionInline)


@admin.register(Subscription)
class SubscriptionAdmin(ReadOnlyAdmin):
    list_display = (
        "subscriber",
        "version",
        "price_fen",
        "tokens",
        "pool",
        "starts_at",
        "ends_at",
        "renews_at",
    )
    list_select_related = ("subscriber", "version__plan", "pool")
    list_filter = ("version__plan",)
    search_phones = ("subscriber__msisdn",)
    search_ids = ("subscriber_id",)


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at",
        "subscriber",
        "version",
        "amount_fen",
        "pay",
        "pool",
        "state_label",
    )
    list_select_related = ("subscriber", "version__plan", "pool")
    list_filter = ("state", "pay")
    search_texts = ("key",)
    search_phones = ("subscriber__msisdn",)
    search_ids = ("id", "subscriber_id")

    @display(
        description=_("State"),
        label={"pending": "warning", "fulfilled": "success", "cancelled": "info"},
    )
    def state_label(self, order: Order) -> tuple[str, str]:
        return order.state, order.get_state_display()


@admin.register(Charge)
class ChargeAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "account", "subscriber", "kind", "name", "amount_fen", "cycle")
    list_select_related = ("account", "subscriber")
    list_filter = (CycleFilter, "kind")
    search_texts = ("key",)
    search_phones = ("subscriber__msisdn",)
    search_ids = ("account_id", "subscriber_id")
