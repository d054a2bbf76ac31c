"""What a node says of itself: its running totals, as JSON or as the text its engine shows."""

from collections.abc import Mapping
from typing import IO, Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiRequest, extend_schema
from rest_framework import serializers
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import KeyAuthentication
from accounts.permissions import scope_required
from config import clock

from .. import callbacks, counters, prometheus_text
from ..decoding import BodyTooLarge
from .nodes import node_of

MOST_BYTES = 2 * 2**20  # a vLLM page has about a hundredth of it


class PrometheusText(BaseParser):
    """The text as it is, under the name `text`, read no further than its limit."""

    media_type = "text/plain"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, str]:
        body: bytes = stream.read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            raise BodyTooLarge(f"The text exceeds {MOST_BYTES:,} bytes.")
        return {"text": body.decode("utf-8", "replace")}


class ModelTotals(serializers.Serializer[Any]):
    model = serializers.CharField(max_length=200, allow_blank=True, default="")
    input_tokens = serializers.IntegerField(min_value=0, max_value=counters.LARGEST_TOTAL)
    output_tokens = serializers.IntegerField(min_value=0, max_value=counters.LARGEST_TOTAL)
    requests = serializers.IntegerField(min_value=0, max_value=counters.LARGEST_TOTAL, default=0)


class CounterReport(serializers.Serializer[Any]):
    at = serializers.DateTimeField(required=False, help_text="Now, if missing.")
    counters = serializers.ListField(child=ModelTotals(), max_length=counters.MOST_MODELS)


class CounterAnswer(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    stored = serializers.IntegerField()
    duplicate = serializers.IntegerField()
    reset = serializers.IntegerField()


class InstantQuery(serializers.Serializer[Any]):
    at = serializers.DateTimeField(required=False)


class NodeCounters(APIView):
    """Take a node's running totals: prompt tokens (cached ones included), generated tokens,
    requests, since its engine started; every minute is often enough.

    JSON, or as `text/plain` the page that vLLM or llama.cpp shows to Prometheus (`?at=` says when
    it was read). A repeat stores nothing; late reports find their place; restarts are recognised.
    llama.cpp rounds its totals to six digits: a difference that this explains is none.
    """

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required("usage:write")]
    parser_classes = [JSONParser, PrometheusText]

    @extend_schema(
        operation_id="report_counters",
        parameters=[OpenApiParameter("at", OpenApiTypes.DATETIME, description="With text/plain")],
        request={
            "application/json": OpenApiRequest(request=CounterReport),
            "text/plain": OpenApiRequest(request=OpenApiTypes.STR),
        },
        responses=CounterAnswer,
    )
    def post(self, request: Request) -> Response:
        now = clock.now()
        body: Any = request.data
        if (request.content_type or "").lower().startswith(PrometheusText.media_type):
            query = InstantQuery(data=request.query_params)
            query.is_valid(raise_exception=True)
            at = query.validated_data.get("at", now)
            totals = [
                counters.Totals(
                    model, one["input"], one["output"], one["requests"], one["rounding"]
                )
                # A body without a byte never gets to the parser.
                for model, one in prometheus_text.totals_of(body.get("text", "")).items()
            ]
        else:
            report = CounterReport(data=body)
            report.is_valid(raise_exception=True)
            at = report.validated_data.get("at", now)
            totals = [counters.Totals(**one) for one in report.validated_data["counters"]]
        taken = counters.take(node_id=node_of(request).pk, totals=totals, at=at, now=now)
        return Response(
            CounterAnswer(
                {
                    "at": at,
                    "stored": taken.stored,
                    "duplicate": taken.duplicate,
                    "reset": taken.reset,
                }
            ).data
        )


class SecretAnswer(serializers.Serializer[Any]):
    callback_secret = serializers.CharField()


class CallbackSecret(APIView):
    """Make a new secret for the signatures of callbacks and show it, once; the old one is void."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required("quota:write")]

    @extend_schema(operation_id="renew_callback_secret", request=None, responses=SecretAnswer)
    def post(self, request: Request) -> Response:
        secret = callbacks.renew_secret(node_id=node_of(request).pk)
        return Response({"callback_secret": secret}, headers={"Cache-Control": "no-store"})
