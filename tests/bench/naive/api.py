"""Usage events by DRF and the ORM: a ModelSerializer with many=True, one transaction an event."""

from typing import Any

from django.db import transaction
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import KeyAuthentication
from accounts.permissions import scope_required
from tests.bench.naive.models import Bucket, Event, LedgerEntry, Model, Subscriber


class EventInput(serializers.ModelSerializer[Event]):
    """A CloudEvents usage event; what it says of tokens is read from `data`."""

    specversion = serializers.CharField(write_only=True)
    type = serializers.CharField(write_only=True)
    id = serializers.CharField(source="event_id", max_length=200)
    subject = serializers.SlugRelatedField(
        source="subscriber", slug_field="msisdn", queryset=Subscriber.objects.all()
    )
    time = serializers.DateTimeField(source="occurred_at")
    data = serializers.DictField(write_only=True)  # type: ignore[assignment]  # a field, not the data

    class Meta:
        model = Event
        fields = ["specversion", "type", "id", "source", "subject", "time", "data"]
        validators: list[Any] = []  # a repeat is no error

    def create(self, validated_data: dict[str, Any]) -> Event:
        data = validated_data["data"]
        model = Model.objects.get(code=data["model"])
        usage = data["usage"]
        cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        reasoning = usage.get("completion_tokens_details", {}).get("reasoning_tokens", 0)
        given = usage["prompt_tokens"] - cached
        output = usage["completion_tokens"] - reasoning
        mt = (
            given * model.input_milli
            + cached * model.cached_milli
            + output * model.output_milli
            + reasoning * model.reasoning_milli
        )
        with transaction.atomic():
            event, created = Event.objects.get_or_create(
                source=validated_data["source"],
                event_id=validated_data["event_id"],
                defaults={
                    "subscriber": validated_data["subscriber"],
                    "model": model,
                    "occurred_at": validated_data["occurred_at"],
                    "input_tokens": given,
                    "cached_tokens": cached,
                    "output_tokens": output,
                    "reasoning_tokens": reasoning,
                    "mt": mt,
                },
            )
            if created:
                debit(event)
        event.is_new = created
        return event


def debit(event: Event) -> None:
    """Let the subscriber's buckets pay in burn order; what is left over is noted on the event."""
    rest = event.mt
    buckets = Bucket.objects.select_for_update().filter(
        subscriber=event.subscriber,
        valid_from__lte=event.occurred_at,
        valid_until__gt=event.occurred_at,
    )
    for bucket in buckets.order_by("priority", "valid_until", "id"):
        if not rest or bucket.model_id not in (None, event.model_id):
            continue
        taken = min(rest, bucket.remaining_mt)
        if taken:
            bucket.remaining_mt -= taken
            bucket.save(update_fields=["remaining_mt"])
            LedgerEntry.objects.create(
                bucket=bucket, event=event, amount_mt=-taken, balance_mt=bucket.remaining_mt
            )
            rest -= taken
    if rest:
        event.uncovered_mt = rest
        event.save(update_fields=["uncovered_mt"])


class ReportEvents(APIView):
    """One event or a list of them."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required("usage:write")]

    def post(self, request: Request) -> Response:
        body = request.data if isinstance(request.data, list) else [request.data]
        events = EventInput(data=body, many=True)
        events.is_valid(raise_exception=True)
        saved: Any = events.save()  # a list, since many=True
        accepted = sum(event.is_new for event in saved)
        return Response({"accepted": accepted, "duplicate": len(saved) - accepted, "rejected": 0})
