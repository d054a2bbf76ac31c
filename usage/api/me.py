"""What subscribers and their apps read of their usage: over time, and single events."""

from datetime import datetime, timedelta
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import KeyAuthentication, PortalSessionAuthentication
from accounts.permissions import IsSubscriber, subscriber_id_of
from config import clock

from .. import reports
from ..models import InferenceModel, UsageEvent
from ..periods import (
    InvalidPeriod,
    cycle_of,
    cycle_start,
    day_end,
    day_of,
    day_start,
    parse_day,
)

MOST_DAYS = 400
EVENT_PAGE = 200


class SubscriberView(APIView):
    """A read of the subscriber behind the key or the portal's session."""

    authentication_classes = [KeyAuthentication, PortalSessionAuthentication]
    permission_classes = [IsSubscriber]


class UsageQuery(serializers.Serializer[Any]):
    group_by = serializers.ChoiceField(["day", "hour", "model", "kind"], default="day")


class UsageAnswer(serializers.Serializer[Any]):
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    group_by = serializers.CharField()
    rows = serializers.ListField(child=serializers.DictField())


class MyUsage(SubscriberView):
    """Usage of the days [from, to) of the billing zone (this month unless told), grouped."""

    @extend_schema(
        operation_id="me_usage",
        parameters=[
            OpenApiParameter("from", OpenApiTypes.DATE),
            OpenApiParameter("to", OpenApiTypes.DATE),
            OpenApiParameter("group_by", enum=["day", "hour", "model", "kind"]),
        ],
        responses=UsageAnswer,
    )
    def get(self, request: Request) -> Response:
        query = UsageQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        start, end = _period(request, clock.now())
        group_by = query.validated_data["group_by"]
        rows = reports.usage_series(
            subscriber_id=subscriber_id_of(request), start=start, end=end, group_by=group_by
        )
        return Response(
            UsageAnswer({"start": start, "end": end, "group_by": group_by, "rows": rows}).data
        )


def _period(request: Request, now: datetime) -> tuple[datetime, datetime]:
    first, last = request.query_params.get("from"), request.query_params.get("to")
    start = day_start(parse_day(first)) if first else cycle_start(cycle_of(now))
    end = day_start(parse_day(last)) if last else day_end(day_of(now))
    if not timedelta(0) < end - start <= timedelta(days=MOST_DAYS):
        raise InvalidPeriod(f"`to` must lie 1 to {MOST_DAYS} days after `from`.")
    return start, end


class EventAnswer(serializers.ModelSerializer[UsageEvent]):
    model = serializers.SerializerMethodField()
    voided = serializers.BooleanField(read_only=True)  # taken back: it counts nothing

    class Meta:
        model = UsageEvent
        fields = [
            "source",
            "event_id",
            "model",
            "occurred_at",
            "input_tokens",
            "cached_tokens",
            "output_tokens",
            "reasoning_tokens",
            "mt",
            "late",
            "voided",
        ]

    def get_model(self, event: UsageEvent) -> str:
        """The model's code."""
        return str(self.context["models"].get(event.model_id, event.model_id))


class EventsAnswer(serializers.Serializer[Any]):
    events = EventAnswer(many=True)
    next = serializers.CharField(allow_null=True)


class MyEvents(SubscriberView):
    """Single requests, newest first; `next` is the cursor of the following page."""

    @extend_schema(
        operation_id="me_events",
        parameters=[
            OpenApiParameter("cursor", OpenApiTypes.STR),
            OpenApiParameter("limit", OpenApiTypes.INT),
        ],
        responses=EventsAnswer,
    )
    def get(self, request: Request) -> Response:
        limit = EventsQuery(data=request.query_params)
        limit.is_valid(raise_exception=True)
        page = limit.validated_data["limit"]
        now = clock.now()
        events = reports.recent_events(
            subscriber_id=subscriber_id_of(request),
            before=_cursor(request.query_params.get("cursor")),
            since=now - timedelta(days=MOST_DAYS),
            limit=page + 1,
        )
        shown = events[:page]
        following = None
        if len(events) > page:
            following = f"{shown[-1].occurred_at.isoformat()}~{shown[-1].pk}"
        context = {"models": dict(InferenceModel.objects.values_list("id", "code"))}
        return Response(EventsAnswer({"events": shown, "next": following}, context=context).data)


class EventsQuery(serializers.Serializer[Any]):
    limit = serializers.IntegerField(min_value=1, max_value=EVENT_PAGE, default=50)


def _cursor(text: str | None) -> tuple[datetime, int] | None:
    if not text:
        return None
    time, _tilde, number = text.partition("~")
    try:
        # A plus sign that was not escaped in the address arrives as a blank.
        at, event_id = datetime.fromisoformat(time.replace(" ", "+")), int(number)
    except ValueError:
        raise InvalidPeriod("The cursor is not one of ours; start without it.") from None
    if at.tzinfo is None:
        raise InvalidPeriod("The cursor is not one of ours; start without it.")
    return at, event_id
