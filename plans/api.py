"""Plans in the API: the public catalogue, a subscriber's plans and orders, staff subscriptions."""

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils.decorators import method_decorator
from django.views.decorators.cache import cache_control
from django.views.decorators.http import conditional_page
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.pagination import CursorPagination
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import KeyAuthentication, PortalSessionAuthentication
from accounts.models import Subscriber
from accounts.permissions import IsSubscriber, actor_of, scope_required, subscriber_id_of
from config import clock
from usage.periods import cycle_end, cycle_of, day_start, in_calendar

from . import ordering, reports, subscribing
from .models import Order, Subscription
from .serializers import (
    CatalogueOutput,
    OrderInput,
    OrderOutput,
    StaffSubscribeInput,
    SubscribeInput,
    SubscriptionOutput,
)

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, required=True, description="names a purchase"
)
SUBSCRIBER = [KeyAuthentication, PortalSessionAuthentication]


class NewestFirst(CursorPagination):
    """Bounded pages that stay put while rows are added."""

    ordering = "-id"
    page_size = 50


@method_decorator([cache_control(public=True, max_age=60), conditional_page], name="dispatch")
class CatalogueView(APIView):
    """What is on sale, for anyone; may be cached for a minute."""

    authentication_classes = ()
    permission_classes = [AllowAny]

    @extend_schema(responses=CatalogueOutput, tags=["catalogue"])
    def get(self, request: Request) -> Response:
        return Response(CatalogueOutput(reports.offers(now=clock.now())).data)


class MySubscriptions(ListAPIView[Subscription]):
    """The plans of the calling subscriber, newest first; POST takes one."""

    authentication_classes = SUBSCRIBER
    permission_classes = [IsSubscriber]
    serializer_class = SubscriptionOutput
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Subscription]:
        if getattr(self, "swagger_fake_view", False):
            return Subscription.objects.none()
        return reports.subscriptions_of(subscriber_id=subscriber_id_of(self.request))

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "now": clock.now()}

    @extend_schema(request=SubscribeInput, responses={201: SubscriptionOutput})
    def post(self, request: Request) -> Response:
        asked = SubscribeInput(data=request.data)
        asked.is_valid(raise_exception=True)
        now = clock.now()
        later = asked.validated_data["starts"] == "next_month"
        subscription = subscribing.subscribe(
            subscriber_id=subscriber_id_of(request),
            plan_code=asked.validated_data["plan"],
            starts_at=cycle_end(cycle_of(now)) if later else now,
            actor=actor_of(request),
            now=now,
        )
        return Response(SubscriptionOutput(subscription, context={"now": now}).data, status=201)


class MySubscription(APIView):
    """One plan of the calling subscriber."""

    authentication_classes = SUBSCRIBER
    permission_classes = [IsSubscriber]

    @extend_schema(responses={200: SubscriptionOutput, 204: None})
    def delete(self, request: Request, subscription_id: int) -> Response:
        """End it where its granted months end: 200; one that never began is removed: 204."""
        mine = reports.subscriptions_of(subscriber_id=subscriber_id_of(request))
        subscription = get_object_or_404(mine, id=subscription_id)
        now = clock.now()
        ended = subscribing.end_subscription(
            subscription_id=subscription.pk, actor=actor_of(request), now=now
        )
        if ended is None:
            return Response(status=204)
        return Response(SubscriptionOutput(ended, context={"now": now}).data)


class MyOrders(ListAPIView[Order]):
    """The purchases of the calling subscriber, newest first; POST buys a pack."""

    authentication_classes = SUBSCRIBER
    permission_classes = [IsSubscriber]
    serializer_class = OrderOutput
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Order]:
        if getattr(self, "swagger_fake_view", False):
            return Order.objects.none()
        return reports.orders_of(subscriber_id=subscriber_id_of(self.request))

    @extend_schema(
        parameters=[IDEMPOTENCY_KEY],
        request=OrderInput,
        responses={201: OrderOutput, 200: OrderOutput},
    )
    def post(self, request: Request) -> Response:
        """201 the first time, 200 for a repeat of the key, 409 for the key with other content."""
        asked = OrderInput(data=request.data)
        asked.is_valid(raise_exception=True)
        order, created = ordering.place_order(
            subscriber_id=subscriber_id_of(request),
            plan_code=asked.validated_data["plan"],
            pay=asked.validated_data["pay"],
            key=request.headers.get("Idempotency-Key", ""),
            now=clock.now(),
        )
        return Response(OrderOutput(order).data, status=201 if created else 200)


class MyOrder(APIView):
    """One purchase of the calling subscriber, to see whether it is fulfilled."""

    authentication_classes = SUBSCRIBER
    permission_classes = [IsSubscriber]

    @extend_schema(responses=OrderOutput)
    def get(self, request: Request, order_id: int) -> Response:
        mine = reports.orders_of(subscriber_id=subscriber_id_of(request))
        return Response(OrderOutput(get_object_or_404(mine, id=order_id)).data)


class SubscriberSubscriptions(ListAPIView[Subscription]):
    """For carrier systems: the plans of a subscriber; POST gives it one."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required("accounts:read", "accounts:write")]
    serializer_class = SubscriptionOutput
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Subscription]:
        if getattr(self, "swagger_fake_view", False):
            return Subscription.objects.none()
        subscriber = get_object_or_404(Subscriber, id=self.kwargs["subscriber_id"])
        return reports.subscriptions_of(subscriber_id=subscriber.pk)

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "now": clock.now()}

    @extend_schema(request=StaffSubscribeInput, responses={201: SubscriptionOutput})
    def post(self, request: Request, subscriber_id: int) -> Response:
        asked = StaffSubscribeInput(data=request.data)
        asked.is_valid(raise_exception=True)
        now = clock.now()
        day = asked.validated_data.get("starts")
        subscription = subscribing.subscribe(
            subscriber_id=subscriber_id,
            plan_code=asked.validated_data["plan"],
            starts_at=day_start(in_calendar(day)) if day else now,
            actor=actor_of(request),
            now=now,
        )
        return Response(SubscriptionOutput(subscription, context={"now": now}).data, status=201)
