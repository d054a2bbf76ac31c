"""What inference nodes call before, while and after they serve: quota sessions.

After 3GPP converged charging and RFC 8506. Used tokens travel as usage events, so there is one
kind of evidence; amounts are whole standard tokens.
"""

import json
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, Literal

import msgspec
from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import KeyAuthentication
from accounts.permissions import scope_required
from config import clock
from config.errors import DomainError

from .. import callbacks, quota
from ..decoding import UNREADABLE, BodyTooLarge, UnreadableBody
from ..models import Node
from .nodes import EventError, ExhaustedSubject, node_of, read_body

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Subject = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

Verb = Literal["create", "update", "release"]
SCOPE = "quota:write"
RESULTS = ["SUCCESS", "QUOTA_LIMIT_REACHED", "USER_UNKNOWN", "SERVICE_DENIED", "RATING_FAILED"]


class MandatoryMissing(DomainError):
    """A member that every request of this kind must have is not there."""

    code = "MANDATORY_IE_MISSING"
    status = 400
    title = "A mandatory member is missing"


class Body(msgspec.Struct):
    """The body of any of the three requests; which members it must have the view says."""

    sequence: Sequence | None = None
    session: Name | None = None
    subject: Subject | None = None
    model: Name | None = None
    requested: Amount | None = None
    notify_url: Annotated[str, msgspec.Meta(max_length=500)] = ""
    events: list[msgspec.Raw] = []
    one_shot: bool = False


_body = msgspec.json.Decoder(Body)


class SessionInput(serializers.Serializer[Any]):
    """Describes `create` in the schema; bodies are read by msgspec."""

    session = serializers.CharField(max_length=200, help_text="the node's own name for it")
    sequence = serializers.IntegerField(min_value=0, default=0)
    subject = serializers.CharField(max_length=100)
    model = serializers.CharField(max_length=200)
    requested = serializers.IntegerField(min_value=0, max_value=10**12, required=False)
    notify_url = serializers.URLField(max_length=500, required=False)
    events = serializers.ListField(child=serializers.DictField(), required=False)
    one_shot = serializers.BooleanField(
        required=False, help_text="charge the events at once and hold nothing"
    )


class UpdateInput(serializers.Serializer[Any]):
    sequence = serializers.IntegerField(min_value=0)
    events = serializers.ListField(child=serializers.DictField(), required=False)
    requested = serializers.IntegerField(min_value=0, max_value=10**12, required=False)


class ReleaseInput(serializers.Serializer[Any]):
    sequence = serializers.IntegerField(min_value=0)
    events = serializers.ListField(child=serializers.DictField(), required=False)


class FinalUnit(serializers.Serializer[Any]):
    action = serializers.ChoiceField(["TERMINATE", "REDIRECT", "RESTRICT"])
    url = serializers.URLField(required=False)
    model = serializers.CharField(required=False)


class LimitShown(serializers.Serializer[Any]):
    scope = serializers.ChoiceField(["subscriber", "key"])
    window = serializers.ChoiceField(["minute", "day", "week", "month"])
    tokens = serializers.IntegerField(required=False)
    requests = serializers.IntegerField(required=False)


class SessionAnswer(serializers.Serializer[Any]):
    """The counts from `batch` to `exhausted` are there when events were sent."""

    ref = serializers.CharField()
    sequence = serializers.IntegerField()
    result = serializers.ChoiceField(RESULTS)
    granted = serializers.IntegerField()
    threshold = serializers.IntegerField(help_text="ask again when so many are used")
    validity_seconds = serializers.IntegerField()
    final = FinalUnit(allow_null=True)
    limit = LimitShown(required=False)
    late_usage = serializers.BooleanField(required=False)
    batch = serializers.IntegerField(required=False)
    accepted = serializers.IntegerField(required=False)
    duplicate = serializers.IntegerField(required=False)
    conflict = serializers.IntegerField(required=False)
    rejected = serializers.IntegerField(required=False)
    errors = EventError(many=True, required=False)  # type: ignore[assignment]  # no attribute
    exhausted = ExhaustedSubject(many=True, required=False)


def read_ask(raw: bytes, *, verb: Verb) -> tuple[Body, quota.Ask]:
    """A body and the question in it; raises UnreadableBody, BodyTooLarge or MandatoryMissing."""
    try:
        body = _body.decode(raw)
        same = json.dumps([verb, msgspec.json.decode(raw)], sort_keys=True)
    except UNREADABLE as error:
        raise UnreadableBody(f"The body cannot be read: {error}") from None
    if len(body.events) > settings.USAGE_MAX_EVENTS:
        raise BodyTooLarge(f"Send at most {settings.USAGE_MAX_EVENTS:,} events at a time.")
    for name, text in (
        ("session", body.session),
        ("subject", body.subject),
        ("model", body.model),
        ("notify_url", body.notify_url),
    ):
        if text is not None and not text.isprintable():
            raise UnreadableBody(f"{name} holds characters that cannot be printed.")
    if body.sequence is None and verb != "create":
        raise MandatoryMissing("sequence is missing: number the requests of a session.")
    return body, quota.Ask(
        sequence=body.sequence or 0,
        digest=blake2b(same.encode(), digest_size=16).digest(),
        requested=body.requested,
        events=[bytes(event) for event in body.events],
    )


def answer_to(raw: bytes, *, verb: Verb, node: Node, now: datetime, ref: str = "") -> quota.Answer:
    """Answer a node's body, whichever way it came; `ref` is the session's unless it is created.

    Raises UnreadableBody, BodyTooLarge, MandatoryMissing, and what the verb raises. Asking twice
    does no harm: what raised stored nothing, and what was stored is told again as it was.
    """
    body, ask = read_ask(raw, verb=verb)
    if verb == "create":
        return _create(body, ask, node=node, now=now)
    go_on = quota.update if verb == "update" else quota.release
    return go_on(node=node, ref=ref, ask=ask, now=now)


def _create(body: Body, ask: quota.Ask, *, node: Node, now: datetime) -> quota.Answer:
    if not body.session or not body.subject or not body.model:
        raise MandatoryMissing("session, subject and model must be there.")
    if body.one_shot and not body.events:
        raise MandatoryMissing("A one-shot debit needs the events to be charged.")
    if body.notify_url:
        callbacks.check_url(body.notify_url)
    return quota.create(
        node=node,
        name=body.session,
        subject=body.subject,
        model=body.model,
        ask=ask,
        notify_url=body.notify_url,
        one_shot=body.one_shot,
        now=now,
    )


def _respond(request: Request, verb: Verb, ref: str = "") -> Response:
    raw = read_body(request)
    answer = answer_to(raw, verb=verb, node=node_of(request), ref=ref, now=clock.now())
    return Response(answer.body, status=answer.status)


class QuotaSessions(APIView):
    """Open a session and hold up to `requested` tokens of the subscriber's for this node.

    Without `requested` the server decides how many. `result` tells why less or nothing was granted;
    `final` tells what to do when the grant is used, if there will be no more. The same body again
    gets the same answer; another body under the same session and sequence gets 409.
    """

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required(SCOPE)]

    @extend_schema(
        operation_id="quota_create", request=SessionInput, responses={201: SessionAnswer}
    )
    def post(self, request: Request) -> Response:
        return _respond(request, "create")


class QuotaUpdate(APIView):
    """Report what was used and get a new grant, which replaces the held one.

    What was used is debited even if nothing more is granted. Late reports of an expired or released
    session are charged too and flagged `late_usage`; a released one grants nothing more. A report
    that arrives after a newer sequence was answered is charged and leaves the newer grant, which
    its answer repeats.
    """

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required(SCOPE)]

    @extend_schema(operation_id="quota_update", request=UpdateInput, responses=SessionAnswer)
    def post(self, request: Request, ref: str) -> Response:
        return _respond(request, "update", ref)


class QuotaRelease(APIView):
    """Report what was used last and give back the rest; the session is over."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required(SCOPE)]

    @extend_schema(operation_id="quota_release", request=ReleaseInput, responses=SessionAnswer)
    def post(self, request: Request, ref: str) -> Response:
        return _respond(request, "release", ref)
