"""Corrections for staff and carrier systems: void and amend events, mend weights, rate again.

An event's number is the `batch` of the answer to its report x 16,384 + its index in the request.
"""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import KeyAuthentication
from accounts.pagination import NewestFirstPages
from accounts.permissions import actor_of, scope_required
from config import clock

from .. import corrections, rerating, tasks, weights
from ..models import Amendment, InferenceModel, Rerating, UsageBatch, Weight
from ..normalising import MAX_TOKENS, Counts
from ..periods import day_start

MayAdjust = scope_required("adjustments:write")
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, required=True, description="names a correction"
)


class CorrectionInput(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=500)


class CountsInput(serializers.Serializer[Any]):
    input = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    cached = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    output = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)
    reasoning = serializers.IntegerField(min_value=0, max_value=MAX_TOKENS, default=0)


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


class WeightOutput(serializers.ModelSerializer[Weight]):
    model = serializers.CharField(source="model.code")

    class Meta:
        model = Weight
        fields = [
            "id",
            "model",
            "input_milli",
            "cached_milli",
            "output_milli",
            "reasoning_milli",
            "valid_from",
            "valid_until",
            "withdrawn_at",
            "withdrawn_by",
            "withdrawn_reason",
        ]


class WeightInput(CorrectionInput):
    input_milli = serializers.IntegerField(min_value=0, max_value=1_000_000)
    cached_milli = serializers.IntegerField(min_value=0, max_value=1_000_000)
    output_milli = serializers.IntegerField(min_value=0, max_value=1_000_000)
    reasoning_milli = serializers.IntegerField(min_value=0, max_value=1_000_000)


class WeightCollection(GenericAPIView[Weight]):
    """Every weight of every model, newest first, those withdrawn included."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required("catalogue:read")]
    pagination_class = NewestFirstPages
    serializer_class = WeightOutput
    queryset = Weight.objects.none()

    @extend_schema(operation_id="weights_list", responses=WeightOutput(many=True))
    def get(self, request: Request) -> Response:
        page = self.paginate_queryset(Weight.objects.select_related("model"))
        return self.get_paginated_response(WeightOutput(page, many=True).data)


class CorrectWeight(APIView):
    """Withdraw a wrong weight in favour of another one for the same period.

    Usage from now on is rated by the new one; the past waits for a rerating.
    """

    authentication_classes = [KeyAuthentication]
    permission_classes = [MayAdjust]

    @extend_schema(
        operation_id="correct_weight", request=WeightInput, responses={201: WeightOutput}
    )
    def post(self, request: Request, weight_id: int) -> Response:
        given = WeightInput(data=request.data)
        given.is_valid(raise_exception=True)
        weight = weights.correct_weight(
            weight_id=weight_id, actor=actor_of(request), now=clock.now(), **given.validated_data
        )
        return Response(WeightOutput(weight).data, status=201)


class RateAgainInput(CorrectionInput):
    """A model and days of the billing zone, [from, to)."""

    model = serializers.CharField(max_length=100)
    to = serializers.DateField()

    def get_fields(self) -> dict[str, Any]:
        # `from` is a word of the language, so it cannot be written as an attribute.
        return super().get_fields() | {"from": serializers.DateField()}


class RerateReport(serializers.Serializer[Any]):
    events = serializers.IntegerField()
    changed = serializers.IntegerField()
    former_mt = serializers.IntegerField()
    mt = serializers.IntegerField()
    difference_mt = serializers.IntegerField()
    subscribers = serializers.IntegerField()
    weights = serializers.ListField(child=serializers.IntegerField())
    by_subscriber = serializers.ListField(child=serializers.DictField())
    applied = serializers.DictField(required=False)


class ReratingOutput(serializers.ModelSerializer[Rerating]):
    model = serializers.SerializerMethodField()
    report = RerateReport()

    class Meta:
        model = Rerating
        fields = [
            "id",
            "model",
            "start",
            "end",
            "state",
            "report",
            "actor",
            "reason",
            "made_at",
            "applied_by",
            "applied_at",
        ]

    def get_model(self, found: Rerating) -> str:
        """The model's code."""
        codes = InferenceModel.objects.filter(pk=found.model_id).values_list("code", flat=True)
        return codes.first() or str(found.model_id)


class ReratingCollection(GenericAPIView[Rerating]):
    """Reratings: GET lists them, POST makes a dry run, which moves nothing."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [MayAdjust]
    pagination_class = NewestFirstPages
    serializer_class = ReratingOutput
    queryset = Rerating.objects.none()

    def get_queryset(self) -> QuerySet[Rerating]:
        return Rerating.objects.all()

    @extend_schema(operation_id="reratings_list", responses=ReratingOutput(many=True))
    def get(self, request: Request) -> Response:
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response(ReratingOutput(page, many=True).data)

    @extend_schema(
        operation_id="rate_again", request=RateAgainInput, responses={201: ReratingOutput}
    )
    def post(self, request: Request) -> Response:
        given = RateAgainInput(data=request.data)
        given.is_valid(raise_exception=True)
        values = given.validated_data
        found = rerating.dry_run(
            model_code=values["model"],
            start=day_start(values["from"]),
            end=day_start(values["to"]),
            actor=actor_of(request),
            reason=values["reason"],
            now=clock.now(),
        )
        return Response(ReratingOutput(found).data, status=201)


class ReratingOne(APIView):
    """One rerating with its report."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [MayAdjust]

    @extend_schema(operation_id="rerating", responses=ReratingOutput)
    def get(self, request: Request, rerating_id: int) -> Response:
        return Response(ReratingOutput(rerating.one(rerating_id=rerating_id)).data)


class ApplyRerating(APIView):
    """Have a dry run applied in the background; safe to repeat."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [MayAdjust]

    @extend_schema(
        operation_id="apply_rerating",
        request=None,
        parameters=[OpenApiParameter("rerating_id", OpenApiTypes.INT64, OpenApiParameter.PATH)],
        responses={202: ReratingOutput},
    )
    def post(self, request: Request, rerating_id: int) -> Response:
        found, _begun = rerating.begin(
            rerating_id=rerating_id, actor=actor_of(request), now=clock.now()
        )
        tasks.apply_rerating.delay(found.pk)
        return Response(ReratingOutput(found).data, status=202)
