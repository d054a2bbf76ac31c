"""Reads of plans that the API, the portal and the admin share."""

from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from usage.models import Weight

from . import catalogue
from .models import Order, Plan, Subscription


def offers(*, now: datetime) -> dict[str, list[Any]]:
    """`plans` and `packs` on sale as versions, `models` with the weights in force at `now`."""
    versions = catalogue.on_sale()
    in_force = Weight.objects.filter(
        Q(valid_until__isnull=True) | Q(valid_until__gt=now),
        valid_from__lte=now,
        withdrawn_at=None,
    )
    models = in_force.order_by("model__code").values(
        "input_milli",
        "cached_milli",
        "output_milli",
        "reasoning_milli",
        "model__code",
        "model__name",
    )
    return {
        "plans": [version for version in versions if version.plan.kind != Plan.Kind.PACK],
        "packs": [version for version in versions if version.plan.kind == Plan.Kind.PACK],
        "models": [
            row | {"code": row["model__code"], "name": row["model__name"]} for row in models
        ],
    }


def subscriptions_of(*, subscriber_id: int) -> QuerySet[Subscription]:
    """The subscriptions of one subscriber, newest first, with their versions, plans and pools."""
    rows = Subscription.objects.filter(subscriber_id=subscriber_id)
    return rows.select_related("version__plan", "pool").order_by("-starts_at")


def current_subscription(*, subscriber_id: int, now: datetime) -> Subscription | None:
    """The subscription that holds `now`, if any."""
    rows = subscriptions_of(subscriber_id=subscriber_id).filter(starts_at__lte=now)
    return rows.exclude(ends_at__lte=now).first()


def orders_of(*, subscriber_id: int) -> QuerySet[Order]:
    """The orders of one subscriber, newest first, with their versions and plans."""
    rows = Order.objects.filter(subscriber_id=subscriber_id)
    return rows.select_related("version__plan").order_by("-id")
