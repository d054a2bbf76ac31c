"""Accounts and subscribers for staff and carrier systems (`Authorization: Bearer <staff key>`)."""

from datetime import datetime
from typing import Protocol

from django.db.models import Prefetch, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import lifecycle
from accounts.api import shapes
from accounts.authentication import KeyAuthentication
from accounts.models import Account, NumberAssignment, Subscriber, SubscriberTransition
from accounts.numbers import normalise_msisdn
from accounts.pagination import IdPages
from accounts.permissions import actor_of, scope_required
from config import clock

READ_OR_WRITE = scope_required("accounts:read", "accounts:write")
WRITE = scope_required("accounts:write")
_SHOWN_TRANSITIONS = 100


class AccountCollection(GenericAPIView[Account]):
    """Accounts: GET lists them by id, POST opens one."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [READ_OR_WRITE]
    pagination_class = IdPages
    queryset = Account.objects.all()
    serializer_class = shapes.AccountOutput

    @extend_schema(operation_id="accounts_list", responses=shapes.AccountOutput(many=True))
    def get(self, request: Request) -> Response:
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response(shapes.AccountOutput(page, many=True).data)

    @extend_schema(request=shapes.AccountInput, responses={201: shapes.AccountOutput})
    def post(self, request: Request) -> Response:
        given = shapes.AccountInput(data=request.data)
        given.is_valid(raise_exception=True)
        account = lifecycle.open_account(**given.validated_data, now=clock.now())
        return Response(shapes.AccountOutput(account).data, status=201)


class AccountOne(APIView):
    """One account."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [READ_OR_WRITE]

    @extend_schema(responses=shapes.AccountOutput)
    def get(self, request: Request, account_id: int) -> Response:
        account = Account.objects.filter(id=account_id).first()
        if account is None:
            raise lifecycle.UnknownAccount(f"There is no account {account_id}.")
        return Response(shapes.AccountOutput(account).data)


class SubscriberCollection(GenericAPIView[Subscriber]):
    """Subscribers: GET lists or searches them, POST creates one in the state `created`."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [READ_OR_WRITE]
    pagination_class = IdPages
    queryset = Subscriber.objects.all()
    serializer_class = shapes.SubscriberOutput

    @extend_schema(
        operation_id="subscribers_list",
        parameters=[
            OpenApiParameter("msisdn", str, description="the whole number, in any usual form"),
            OpenApiParameter("state", str, enum=Subscriber.State.values),
            OpenApiParameter("account_id", int),
        ],
        responses=shapes.SubscriberOutput(many=True),
    )
    def get(self, request: Request) -> Response:
        page = self.paginate_queryset(self._asked_for(request))
        return self.get_paginated_response(shapes.SubscriberOutput(page, many=True).data)

    @extend_schema(request=shapes.SubscriberInput, responses={201: shapes.SubscriberOutput})
    def post(self, request: Request) -> Response:
        given = shapes.SubscriberInput(data=request.data)
        given.is_valid(raise_exception=True)
        subscriber = lifecycle.create_subscriber(
            **given.validated_data, actor=actor_of(request), now=clock.now()
        )
        return Response(shapes.SubscriberOutput(subscriber).data, status=201)

    def _asked_for(self, request: Request) -> QuerySet[Subscriber]:
        found = self.get_queryset()
        asked = request.query_params
        if "msisdn" in asked:
            found = found.filter(msisdn=normalise_msisdn(asked["msisdn"]))
        if "state" in asked:
            if asked["state"] not in Subscriber.State.values:
                raise ValidationError({"state": f"One of {', '.join(Subscriber.State.values)}."})
            found = found.filter(state=asked["state"])
        if "account_id" in asked:
            if not asked["account_id"].isdecimal() or len(asked["account_id"]) > 18:
                raise ValidationError({"account_id": "A whole number."})
            found = found.filter(account_id=int(asked["account_id"]))
        return found


class SubscriberOne(APIView):
    """One subscriber with the numbers held and the newest steps of its life."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [READ_OR_WRITE]

    @extend_schema(responses=shapes.SubscriberDetail)
    def get(self, request: Request, subscriber_id: int) -> Response:
        in_order = NumberAssignment.objects.order_by("valid_from")
        newest = SubscriberTransition.objects.order_by("-id")[:_SHOWN_TRANSITIONS]
        transitions = Prefetch("transitions", newest, to_attr="newest_transitions")
        found = Subscriber.objects.prefetch_related(Prefetch("numbers", in_order), transitions)
        subscriber = found.filter(id=subscriber_id).first()
        if subscriber is None:
            raise lifecycle.UnknownSubscriber(f"There is no subscriber {subscriber_id}.")
        return Response(shapes.SubscriberDetail(subscriber).data)


class Verb(Protocol):
    """One step of a subscriber's life."""

    def __call__(
        self, *, subscriber_id: int, actor: str, reason: str, now: datetime
    ) -> Subscriber: ...


class SubscriberStep(APIView):
    """A step with a reason; 409 when the state does not allow it."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [WRITE]

    def _take(self, request: Request, subscriber_id: int, verb: Verb) -> Response:
        given = shapes.ReasonInput(data=request.data)
        given.is_valid(raise_exception=True)
        subscriber = verb(
            subscriber_id=subscriber_id,
            actor=actor_of(request),
            reason=given.validated_data["reason"],
            now=clock.now(),
        )
        return Response(shapes.SubscriberOutput(subscriber).data)


class SubscriberActivate(SubscriberStep):
    """created -> active."""

    @extend_schema(request=shapes.ReasonInput, responses=shapes.SubscriberOutput)
    def post(self, request: Request, subscriber_id: int) -> Response:
        return self._take(request, subscriber_id, lifecycle.activate)


class SubscriberSuspend(SubscriberStep):
    """active -> suspended."""

    @extend_schema(request=shapes.ReasonInput, responses=shapes.SubscriberOutput)
    def post(self, request: Request, subscriber_id: int) -> Response:
        return self._take(request, subscriber_id, lifecycle.suspend)


class SubscriberResume(SubscriberStep):
    """suspended -> active."""

    @extend_schema(request=shapes.ReasonInput, responses=shapes.SubscriberOutput)
    def post(self, request: Request, subscriber_id: int) -> Response:
        return self._take(request, subscriber_id, lifecycle.resume)


class SubscriberTerminate(SubscriberStep):
    """Any living state -> terminated, for ever; the number becomes free."""

    @extend_schema(request=shapes.ReasonInput, responses=shapes.SubscriberOutput)
    def post(self, request: Request, subscriber_id: int) -> Response:
        return self._take(request, subscriber_id, lifecycle.terminate)


class SubscriberNumber(APIView):
    """Another number for a living subscriber; balance and history stay."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [WRITE]

    @extend_schema(request=shapes.NumberInput, responses=shapes.SubscriberOutput)
    def post(self, request: Request, subscriber_id: int) -> Response:
        given = shapes.NumberInput(data=request.data)
        given.is_valid(raise_exception=True)
        subscriber = lifecycle.change_number(
            **given.validated_data,
            subscriber_id=subscriber_id,
            actor=actor_of(request),
            now=clock.now(),
        )
        return Response(shapes.SubscriberOutput(subscriber).data)
