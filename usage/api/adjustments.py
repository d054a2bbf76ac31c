"""Movements for staff and carrier systems: adjust or void a bucket, transfer from one."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import KeyAuthentication
from accounts.permissions import actor_of, scope_required
from config import clock

from .. import movements
from ..ledger import MOST_MT, MOST_TOKENS
from ..models import Movement

MayAdjust = scope_required("adjustments:write")
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, required=True, description="names a movement"
)


class AmountInput(serializers.Serializer[Any]):
    """An amount, in whole standard tokens or in millitokens."""

    tokens = serializers.IntegerField(min_value=-MOST_TOKENS, max_value=MOST_TOKENS, required=False)
    mt = serializers.IntegerField(min_value=-MOST_MT, max_value=MOST_MT, required=False)
    reason = serializers.CharField(max_length=500)

    def amount_mt(self) -> int:
        """What was asked for, in millitokens."""
        given = self.validated_data
        return int(given["mt"]) if "mt" in given else int(given["tokens"]) * 1000

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "void" not in attrs and ("tokens" in attrs) == ("mt" in attrs):
            raise serializers.ValidationError("Give either tokens or mt.")
        return attrs


class AdjustmentInput(AmountInput):
    """`bucket` with an amount (below zero takes), or `void` alone: the bucket to empty."""

    bucket = serializers.IntegerField(min_value=1, required=False)
    void = serializers.IntegerField(min_value=1, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("bucket" in attrs) == ("void" in attrs):
            raise serializers.ValidationError("Give either bucket or void.")
        if "void" in attrs and ("tokens" in attrs or "mt" in attrs):
            raise serializers.ValidationError("A void takes all; adjust a bucket by an amount.")
        return super().validate(attrs)


class TransferInput(AmountInput):
    """An amount of a subscriber's bucket for another subscriber."""

    bucket = serializers.IntegerField(min_value=1)
    to_subscriber = serializers.IntegerField(min_value=1)
    new_bucket = serializers.BooleanField(default=False)


class MovementOutput(serializers.ModelSerializer[Movement]):
    bucket = serializers.IntegerField(source="bucket_id")
    other_bucket = serializers.IntegerField(source="other_bucket_id", allow_null=True)

    class Meta:
        model = Movement
        fields = [
            "id",
            "kind",
            "bucket",
            "other_bucket",
            "amount_mt",
            "before_mt",
            "after_mt",
            "other_before_mt",
            "other_after_mt",
            "actor",
            "reason",
            "at",
        ]


class StaffMovement(APIView):
    authentication_classes = [KeyAuthentication]
    permission_classes = [MayAdjust]


class Adjustments(StaffMovement):
    """Give to, take from, or void a bucket; 200 for a repeat of the key, 201 the first time."""

    @extend_schema(
        parameters=[IDEMPOTENCY_KEY],
        request=AdjustmentInput,
        responses={201: MovementOutput, 200: MovementOutput},
    )
    def post(self, request: Request) -> Response:
        asked = AdjustmentInput(data=request.data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        named: dict[str, Any] = {
            "key": request.headers.get("Idempotency-Key", ""),
            "actor": actor_of(request),
            "reason": given["reason"],
            "now": clock.now(),
        }
        if "void" in given:
            movement, created = movements.void_bucket(bucket_id=given["void"], **named)
        else:
            movement, created = movements.adjust(
                bucket_id=given["bucket"], amount_mt=asked.amount_mt(), **named
            )
        return Response(MovementOutput(movement).data, status=201 if created else 200)


class Transfers(StaffMovement):
    """Move tokens of one subscriber to another under the same terms; repeats as in adjustments."""

    @extend_schema(
        parameters=[IDEMPOTENCY_KEY],
        request=TransferInput,
        responses={201: MovementOutput, 200: MovementOutput},
    )
    def post(self, request: Request) -> Response:
        asked = TransferInput(data=request.data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        movement, created = movements.transfer(
            bucket_id=given["bucket"],
            to_subscriber_id=given["to_subscriber"],
            amount_mt=asked.amount_mt(),
            into_new_bucket=given["new_bucket"],
            key=request.headers.get("Idempotency-Key", ""),
            actor=actor_of(request),
            reason=given["reason"],
            now=clock.now(),
        )
        return Response(MovementOutput(movement).data, status=201 if created else 200)
