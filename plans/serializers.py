"""The shapes of plans in the API: money in fen, amounts in standard tokens, UTC instants."""

from datetime import datetime
from typing import Any

from rest_framework import serializers

from .models import Order, PlanVersion, Subscription


class OfferOutput(serializers.ModelSerializer[PlanVersion]):
    """A plan or pack that is on sale."""

    code = serializers.CharField(source="plan.code")
    kind = serializers.CharField(source="plan.kind")
    pool = serializers.CharField(
        source="pool_kind",
        help_text="whose pool the tokens go into: family, enterprise; none if empty",
    )

    class Meta:
        model = PlanVersion
        fields = [
            "code",
            "kind",
            "version",
            "name",
            "name_en",
            "audience",
            "price_fen",
            "tokens",
            "validity_days",
            "model_codes",
            "beyond",
            "payg_fen_per_million",
            "payg_cap_tokens",
            "rollover_percent",
            "rollover_cap_tokens",
            "minute_from",
            "minute_until",
            "final_action",
            "free_model",
            "pool_first",
            "pool",
        ]


class ModelOutput(serializers.Serializer[dict[str, Any]]):
    """A model with its weights of today: standard tokens per raw token, in thousandths."""

    code = serializers.CharField()
    name = serializers.CharField()
    input_milli = serializers.IntegerField()
    cached_milli = serializers.IntegerField()
    output_milli = serializers.IntegerField()
    reasoning_milli = serializers.IntegerField()


class CatalogueOutput(serializers.Serializer[dict[str, Any]]):
    """Everything on sale, and what a token of each model counts."""

    plans = OfferOutput(many=True)
    packs = OfferOutput(many=True)
    models = ModelOutput(many=True)


class SubscriptionOutput(serializers.ModelSerializer[Subscription]):
    """A plan that is, was or will be held."""

    plan = serializers.CharField(source="version.plan.code")
    name = serializers.CharField(source="version.name")
    name_en = serializers.CharField(source="version.name_en")
    beyond = serializers.CharField(source="version.beyond")
    state = serializers.SerializerMethodField()

    class Meta:
        model = Subscription
        fields = [
            "id",
            "plan",
            "name",
            "name_en",
            "beyond",
            "price_fen",
            "tokens",
            "starts_at",
            "ends_at",
            "state",
            "pool_id",
        ]

    def get_state(self, subscription: Subscription) -> str:
        """upcoming, active or ended, at the instant `now` of the context."""
        now: datetime = self.context["now"]
        if subscription.starts_at > now:
            return "upcoming"
        ended = subscription.ends_at is not None and subscription.ends_at <= now
        return "ended" if ended else "active"


class SubscribeInput(serializers.Serializer[dict[str, Any]]):
    """A plan from now on, or from the first of next month."""

    plan = serializers.CharField(max_length=40)
    starts = serializers.ChoiceField(choices=["now", "next_month"], default="now")


class StaffSubscribeInput(serializers.Serializer[dict[str, Any]]):
    """A plan from a billing-zone day on; without one, from now on."""

    plan = serializers.CharField(max_length=40)
    starts = serializers.DateField(required=False)


class OrderInput(serializers.Serializer[dict[str, Any]]):
    """A pack, on the bill or paid before it is granted."""

    plan = serializers.CharField(max_length=40)
    pay = serializers.ChoiceField(choices=Order.Pay.choices, default=Order.Pay.BILL)


class OrderOutput(serializers.ModelSerializer[Order]):
    """A purchase; pending until it is paid, unless it goes on the bill."""

    plan = serializers.CharField(source="version.plan.code")
    name = serializers.CharField(source="version.name")
    name_en = serializers.CharField(source="version.name_en")
    tokens = serializers.IntegerField(source="version.tokens")

    class Meta:
        model = Order
        fields = [
            "id",
            "plan",
            "name",
            "name_en",
            "tokens",
            "amount_fen",
            "pay",
            "pool_id",
            "state",
            "created_at",
            "fulfilled_at",
        ]
