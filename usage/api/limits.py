"""Limits besides the plan, set by staff for a subscriber and by subscribers for their own keys."""

from abc import abstractmethod
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.api.me import SUBSCRIBER_AUTHENTICATION
from accounts.authentication import KeyAuthentication
from accounts.models import ApiKey
from accounts.permissions import IsSubscriber, scope_required, subscriber_id_of
from config import clock

from .. import limits, profiles
from ..models import UsageLimit
from ..sessions import MT

UNITS = {"tokens": UsageLimit.Unit.MT, "requests": UsageLimit.Unit.REQUESTS}
NAMES = {unit: name for name, unit in UNITS.items()}


class LimitInput(serializers.Serializer[Any]):
    window = serializers.ChoiceField(UsageLimit.Window.values)
    unit = serializers.ChoiceField(list(UNITS))
    amount = serializers.IntegerField(min_value=0, max_value=10**15)


class LimitName(serializers.Serializer[Any]):
    window = serializers.ChoiceField(UsageLimit.Window.values)
    unit = serializers.ChoiceField(list(UNITS))


class LimitOutput(LimitInput):
    key = serializers.CharField(allow_null=True, help_text="public id; null: all of the subscriber")


class LimitList(serializers.Serializer[Any]):
    limits = LimitOutput(many=True)


NAMED = [
    OpenApiParameter("window", enum=UsageLimit.Window.values, required=True),
    OpenApiParameter("unit", enum=list(UNITS), required=True),
]


def shown(limit: UsageLimit) -> dict[str, Any]:
    """A limit in standard tokens or requests."""
    tokens = limit.unit == UsageLimit.Unit.MT
    return {
        "key": limit.api_key.public_id if limit.api_key else None,
        "window": limit.window,
        "unit": NAMES[UsageLimit.Unit(limit.unit)],
        "amount": limit.amount // MT if tokens else limit.amount,
    }


class LimitsView(APIView):
    """GET lists them, PUT sets one, DELETE lifts one (`?window=&unit=`)."""

    @abstractmethod
    def owner(self, request: Request, **where: Any) -> tuple[int, int | None]:
        """(subscriber id, API key id or None) that the address names."""

    @extend_schema(responses=LimitList)
    def get(self, request: Request, **where: Any) -> Response:
        subscriber_id, api_key_id = self.owner(request, **where)
        rows = UsageLimit.objects.filter(subscriber_id=subscriber_id).select_related("api_key")
        if api_key_id is not None:
            rows = rows.filter(api_key_id=api_key_id)
        found = rows.order_by("api_key_id", "window", "unit")
        return Response({"limits": [shown(limit) for limit in found[:1000]]})

    @extend_schema(request=LimitInput, responses=LimitOutput)
    def put(self, request: Request, **where: Any) -> Response:
        subscriber_id, api_key_id = self.owner(request, **where)
        given = LimitInput(data=request.data)
        given.is_valid(raise_exception=True)
        unit = UNITS[given.validated_data["unit"]]
        amount = given.validated_data["amount"]
        limit = limits.set_limit(
            subscriber_id=subscriber_id,
            api_key_id=api_key_id,
            window=given.validated_data["window"],
            unit=unit,
            amount=amount * MT if unit == UsageLimit.Unit.MT else amount,
            now=clock.now(),
        )
        return Response(shown(limit))

    @extend_schema(parameters=NAMED, responses={204: None})
    def delete(self, request: Request, **where: Any) -> Response:
        subscriber_id, api_key_id = self.owner(request, **where)
        named = LimitName(data=request.query_params)
        named.is_valid(raise_exception=True)
        limits.remove_limit(
            subscriber_id=subscriber_id,
            api_key_id=api_key_id,
            window=named.validated_data["window"],
            unit=UNITS[named.validated_data["unit"]],
        )
        return Response(status=204)


class SubscriberLimits(LimitsView):
    """Limits of a subscriber; the list shows those of its keys too."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required("accounts:read", "accounts:write")]

    def owner(self, request: Request, **where: Any) -> tuple[int, int | None]:
        subscriber_id = int(where["subscriber_id"])
        profiles.refuse_unknown(subscriber_id)
        return subscriber_id, None


class MyKeyLimits(LimitsView):
    """Limits of one of my API keys: nodes hold them against what names that key as its subject."""

    authentication_classes = SUBSCRIBER_AUTHENTICATION
    permission_classes = [IsSubscriber]

    def owner(self, request: Request, **where: Any) -> tuple[int, int | None]:
        subscriber_id = subscriber_id_of(request)
        mine = ApiKey.objects.filter(subscriber_id=subscriber_id, public_id=where["public_id"])
        key_id = mine.values_list("id", flat=True).first()
        if key_id is None:
            raise NotFound("You have no such key.")
        return subscriber_id, key_id
