"""Corrections for staff and carrier systems: void and amend events.

An event's number is the `batch` of the answer to its report x 16,384 + its index in the request.
"""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import KeyAuthentication
from accounts.permissions import actor_of, scope_required
from config import clock

from .. import corrections
from ..models import Amendment, UsageBatch
from ..normalising import MAX_TOKENS, Counts

MayAdjust = scope_required("adjustments:write")
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, required=True, description="names a correction"
)


class CorrectionInput(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=500)


class CountsInput(serializers.Serializer[Any]):
    """At least one of the four; those that are not named are none."""

    input = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    cached = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    output = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    reasoning = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)

    def to_internal_value(self, data: Any) -> Any:
        # A misspelt name would count as none, and the event be given back as a whole.
        if isinstance(data, dict) and not 0 < len(data) == len(data.keys() & self.fields.keys()):
            names = ", ".join(self.fields)
            raise serializers.ValidationError(f"Give one or more of {names}, and no other name.")
        return super().to_internal_value(data)


class AmendInput(CorrectionInput):
    """What the event should count: the engine's `usage` object, or four disjoint `counts`."""

    usage = serializers.DictField(required=False)
    counts = CountsInput(required=False)


class AmendmentOutput(serializers.ModelSerializer[Amendment]):
    event = serializers.IntegerField(source="event_id")
    debited_mt = serializers.SerializerMethodField()
    overage_mt = serializers.SerializerMethodField()
    uncovered_mt = serializers.SerializerMethodField()

    class Meta:
        model = Amendment
        fields = [
            "id",
            "event",
            "kind",
            "occurred_at",
            "recorded_at",
            "input_tokens",
            "cached_tokens",
            "output_tokens",
            "reasoning_tokens",
            "mt",
            "debited_mt",
            "overage_mt",
            "uncovered_mt",
            "late",
            "actor",
            "reason",
        ]

    def get_debited_mt(self, amendment: Amendment) -> int:
        """What buckets paid of the difference; below zero: what they got back."""
        return self._batch(amendment).debited_mt

    def get_overage_mt(self, amendment: Amendment) -> int:
        """The priced part of the difference."""
        return self._batch(amendment).overage_mt

    def get_uncovered_mt(self, amendment: Amendment) -> int:
        """The part that nothing covers."""
        return self._batch(amendment).uncovered_mt

    def _batch(self, amendment: Amendment) -> UsageBatch:
        # A void or an amendment is the only one of its batch.
        batch: UsageBatch = self.context["batch"]
        assert batch.pk == amendment.batch_id
        return batch


def _key(request: Request) -> str:
    """The caller's key, kept apart from those of others."""
    assert request.auth is not None  # the permission saw to it
    given = request.headers.get("Idempotency-Key", "")[:121].strip()
    if not 0 < len(given) <= 120:
        raise corrections.CorrectionUnreadable(
            "Send an Idempotency-Key header of 1 to 120 characters."
        )
    return f"api:{request.auth.pk}:{given}"


def _answer(amendment: Amendment) -> Response:
    context = {"batch": UsageBatch.objects.get(pk=amendment.batch_id)}
    return Response(AmendmentOutput(amendment, context=context).data, status=201)


class VoidEvent(APIView):
    """Take a usage event back. Its tokens return to the buckets that paid, the last one first."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [MayAdjust]

    @extend_schema(
        operation_id="void_event",
        parameters=[IDEMPOTENCY_KEY],
        request=CorrectionInput,
        responses={201: AmendmentOutput},
    )
    def post(self, request: Request, event_id: int) -> Response:
        given = CorrectionInput(data=request.data)
        given.is_valid(raise_exception=True)
        return _answer(
            corrections.void(
                event_id=event_id,
                actor=actor_of(request),
                reason=given.validated_data["reason"],
                key=_key(request),
                now=clock.now(),
            )
        )


class AmendEvent(APIView):
    """Let a usage event count otherwise; only the difference is charged or taken back."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [MayAdjust]

    @extend_schema(
        operation_id="amend_event",
        parameters=[IDEMPOTENCY_KEY],
        request=AmendInput,
        responses={201: AmendmentOutput},
    )
    def post(self, request: Request, event_id: int) -> Response:
        given = AmendInput(data=request.data)
        given.is_valid(raise_exception=True)
        values = given.validated_data
        counts = Counts(**values["counts"]) if "counts" in values else None
        return _answer(
            corrections.amend(
                event_id=event_id,
                counts=corrections.counts_of(usage=values.get("usage"), counts=counts),
                actor=actor_of(request),
                reason=values["reason"],
                key=_key(request),
                now=clock.now(),
            )
        )
