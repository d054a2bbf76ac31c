"""Weights that were wrong, for staff and carrier systems: see them, mend one, rate usage again."""

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

from .. import rerating, tasks, weights
from ..models import InferenceModel, Rerating, Weight
from ..periods import day_start, in_calendar
from .corrections import CorrectionInput, MayAdjust


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
            start=day_start(in_calendar(values["from"])),
            end=day_start(in_calendar(values["to"])),
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


class DifferenceQuery(serializers.Serializer[Any]):
    after = serializers.IntegerField(min_value=0, max_value=2**63 - 1, default=0)


class SubscriberDifference(serializers.Serializer[Any]):
    subscriber = serializers.IntegerField()
    events = serializers.IntegerField()
    difference_mt = serializers.IntegerField()


class DifferenceAnswer(serializers.Serializer[Any]):
    subscribers = SubscriberDifference(many=True)
    next = serializers.IntegerField(allow_null=True, help_text="`after` of the next page")


class ReratingDifferences(APIView):
    """The difference of every subscriber, by id: of a dry run what it would be now, else what was
    applied so far. A page may be empty; go on with `next` until it is null."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [MayAdjust]

    @extend_schema(
        operation_id="rerating_differences",
        parameters=[OpenApiParameter("after", OpenApiTypes.INT64)],
        responses=DifferenceAnswer,
    )
    def get(self, request: Request, rerating_id: int) -> Response:
        query = DifferenceQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        rows, following = rerating.differences(rerating_id=rerating_id, **query.validated_data)
        return Response(DifferenceAnswer({"subscribers": rows, "next": following}).data)


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
