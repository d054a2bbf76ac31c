"""What inference nodes call: report usage, follow the exhausted feed, ask who they are."""

from typing import Any

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiRequest, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import KeyAuthentication
from accounts.models import ApiKey
from accounts.permissions import scope_required
from config import clock

from .. import enforcement, nodes, sequences
from ..decoding import MEDIA_TYPES, BodyTooLarge, split_body
from ..ingest import ingest
from ..models import Node, UsageBatch

FEED_PAGE = 1000


class EventError(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    id = serializers.CharField()
    code = serializers.CharField()
    detail = serializers.CharField()


class ExhaustedSubject(serializers.Serializer[Any]):
    subject = serializers.CharField()
    reason = serializers.CharField()


class BatchAnswer(serializers.Serializer[Any]):
    batch = serializers.IntegerField()
    accepted = serializers.IntegerField()
    duplicate = serializers.IntegerField()
    conflict = serializers.IntegerField()
    rejected = serializers.IntegerField()
    errors = EventError(many=True)  # type: ignore[assignment]  # fields are no attributes
    exhausted = ExhaustedSubject(many=True)


def key_of(request: Request) -> ApiKey:
    """The key that these views let in."""
    assert isinstance(request.auth, ApiKey)
    return request.auth


def node_of(request: Request) -> Node:
    """The node behind the key, which always has one; NodeSwitchedOff while staff keeps it out."""
    return nodes.let_in(Node.objects.get(node_keys__api_key=key_of(request)))


class BatchQuery(serializers.Serializer[Any]):
    sequence = serializers.IntegerField(
        min_value=0, max_value=sequences.LARGEST, default=None, allow_null=True
    )


class ReportUsage(APIView):
    """Take one CloudEvents event, a batch of them, or one a line; gzip is welcome.

    200 also when some events are refused: the batch was handled, `errors` says which and why.
    Send the same again after a 503 or a lost answer: what was counted shows as duplicate.
    A node may number its batches by `sequence`; numbers that do not arrive stand in `/nodes/me`.
    """

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required("usage:write")]

    @extend_schema(
        operation_id="report_usage",
        parameters=[OpenApiParameter("sequence", OpenApiTypes.INT64)],
        request={media: OpenApiRequest(request=OpenApiTypes.OBJECT) for media in MEDIA_TYPES},
        responses=BatchAnswer,
    )
    def post(self, request: Request) -> Response:
        query = BatchQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        events = split_body(
            body=read_body(request),
            content_type=request.META.get("CONTENT_TYPE", ""),
            encoding=request.headers.get("Content-Encoding", ""),
        )
        result = ingest(
            node=node_of(request), events=events, now=clock.now(), **query.validated_data
        )
        return Response(result.shown())


def read_body(request: Request) -> bytes:
    """The body, read no further than its limit; raises BodyTooLarge."""
    limit = settings.USAGE_MAX_BYTES
    body: bytes = request._request.read(limit + 1)
    if len(body) > limit:
        raise BodyTooLarge(f"The body exceeds {limit:,} bytes; send smaller batches.")
    return body


class FeedChange(serializers.Serializer[Any]):
    cursor = serializers.IntegerField(source="id")
    subscriber = serializers.IntegerField(source="subscriber_id")
    subject = serializers.CharField(source="msisdn")
    blocked = serializers.BooleanField()
    reason = serializers.CharField()
    at = serializers.DateTimeField()


class FeedAnswer(serializers.Serializer[Any]):
    changes = FeedChange(many=True)
    cursor = serializers.IntegerField()


class FeedQuery(serializers.Serializer[Any]):
    cursor = serializers.IntegerField(min_value=0, max_value=2**63 - 1, default=0)
    limit = serializers.IntegerField(min_value=1, max_value=FEED_PAGE, default=FEED_PAGE)


class ExhaustedFeed(APIView):
    """Who was blocked or unblocked since the cursor, oldest first, and the cursor to ask next.

    Start at 0; poll as often as every second. A subject is served while its newest change says
    `blocked: false`, or when it never appeared.
    """

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required("feed:read")]

    @extend_schema(
        operation_id="exhausted_feed",
        parameters=[
            OpenApiParameter("cursor", OpenApiTypes.INT64),
            OpenApiParameter("limit", OpenApiTypes.INT),
        ],
        responses=FeedAnswer,
    )
    def get(self, request: Request) -> Response:
        node_of(request)  # refuses one that is switched off
        query = FeedQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        page = enforcement.changes_after(**query.validated_data)
        return Response(FeedAnswer(page).data)


class NodeAnswer(serializers.Serializer[Any]):
    name = serializers.CharField()
    cluster = serializers.CharField()
    sources = serializers.ListField(child=serializers.CharField())
    scopes = serializers.ListField(child=serializers.CharField())
    last_batch = serializers.IntegerField(allow_null=True)
    last_sequence = serializers.IntegerField(allow_null=True)
    gaps = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField(), min_length=2, max_length=2)
    )


class WhoAmI(APIView):
    """The node behind the key, the sources it may report for, its newest batch, and the numbers
    of batches that did not arrive: `gaps` of [first, last] below `last_sequence`."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required("usage:write")]

    @extend_schema(operation_id="node_me", responses=NodeAnswer)
    def get(self, request: Request) -> Response:
        node = node_of(request)
        numbers = sequences.sequence_of(node_id=node.pk)
        batches = UsageBatch.objects.filter(node_id=node.pk).order_by("-id")
        return Response(
            {
                "name": node.name,
                "cluster": node.cluster,
                "sources": node.sources,
                "scopes": key_of(request).scopes,
                "last_batch": batches.values_list("id", flat=True).first(),
                "last_sequence": numbers.last,
                "gaps": numbers.gaps,
            }
        )
