"""The balance over the API: a subscriber's own for its apps, anybody's for staff, now or as of a
past instant."""

from datetime import datetime
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import KeyAuthentication
from accounts.permissions import scope_required, subscriber_id_of
from config import clock

from .. import balances
from ..periods import FIRST_DAY, InvalidPeriod, day_start
from ..profiles import refuse_unknown
from .me import SubscriberView

EARLIEST = day_start(FIRST_DAY)
AS_OF = OpenApiParameter("as_of", OpenApiTypes.DATETIME)


class BucketAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    kind = serializers.CharField()
    name = serializers.CharField()
    name_en = serializers.CharField()
    granted_mt = serializers.IntegerField()
    remaining_mt = serializers.IntegerField()
    reserved_mt = serializers.IntegerField()
    valid_from = serializers.DateTimeField()
    valid_until = serializers.DateTimeField()
    models = serializers.ListField(child=serializers.CharField(), source="model_codes")
    minute_from = serializers.IntegerField(help_text="pays from this minute of the day")
    minute_until = serializers.IntegerField(help_text="to this one; over midnight when before it")
    usable_now = serializers.BooleanField()


class PoolShareAnswer(serializers.Serializer[Any]):
    """What a pool still lets its member take, beside the member's own buckets."""

    pool_id = serializers.IntegerField()
    name = serializers.CharField()
    kind = serializers.CharField()
    available_mt = serializers.IntegerField(
        help_text="what you can take now: what the pool has free, within your caps"
    )
    reserved_mt = serializers.IntegerField(help_text="what your open sessions hold of it")
    used_this_cycle_mt = serializers.IntegerField()
    used_today_mt = serializers.IntegerField()
    cycle_cap_mt = serializers.IntegerField(help_text="means nothing unless cycle_capped")
    cycle_capped = serializers.BooleanField()
    day_cap_mt = serializers.IntegerField(help_text="means nothing unless day_capped")
    day_capped = serializers.BooleanField()
    pool_free_mt = serializers.IntegerField(source="free_mt", help_text="for all its members")
    pool_granted_mt = serializers.IntegerField(source="granted_mt")
    goes_first = serializers.BooleanField(help_text="before your own buckets")


class BalanceAnswer(serializers.Serializer[Any]):
    as_of = serializers.DateTimeField()
    available_tokens = serializers.SerializerMethodField()
    available_mt = serializers.IntegerField(help_text="in your own buckets")
    usable_tokens = serializers.SerializerMethodField()
    usable_mt = serializers.IntegerField(help_text="in your own buckets and of the pool's share")
    reserved_mt = serializers.IntegerField()
    granted_mt = serializers.IntegerField()
    priced_overage_mt = serializers.IntegerField()
    uncovered_mt = serializers.IntegerField()
    beyond = serializers.CharField()
    blocked = serializers.CharField(allow_blank=True)
    buckets = BucketAnswer(many=True)
    pool = PoolShareAnswer(allow_null=True)

    def get_available_tokens(self, balance: balances.Balance) -> int:
        """Whole standard tokens that can be used now of one's own."""
        return balance.available_mt // 1000

    def get_usable_tokens(self, balance: balances.Balance) -> int:
        """Whole standard tokens that can be used now, the pool's share among them."""
        return balance.usable_mt // 1000


class MyBalance(SubscriberView):
    """What is left now, bucket by bucket in the order they are used, in millitokens; or what was
    left of one's own as of a past instant, by what the ledger had recorded then: no pool is told
    of, and what open sessions held counts as left."""

    @extend_schema(operation_id="me_balance", parameters=[AS_OF], responses=BalanceAnswer)
    def get(self, request: Request) -> Response:
        return _answer(request, subscriber_id_of(request))


class SubscriberBalance(APIView):
    """The same of any subscriber, for staff and carrier systems."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required("accounts:read", "accounts:write")]

    @extend_schema(operation_id="subscriber_balance", parameters=[AS_OF], responses=BalanceAnswer)
    def get(self, request: Request, subscriber_id: int) -> Response:
        refuse_unknown(subscriber_id)
        return _answer(request, subscriber_id)


def _answer(request: Request, subscriber_id: int) -> Response:
    now = clock.now()
    at = past_instant(request, now)
    if at is None:
        balance = balances.balance(subscriber_id=subscriber_id, now=now)
    else:
        balance = balances.balance_as_of(subscriber_id=subscriber_id, at=at)
    return Response(BalanceAnswer(balance).data)


def past_instant(request: Request, now: datetime) -> datetime | None:
    """What `as_of` says, if it is there; raises InvalidPeriod when it is no past instant."""
    text = request.query_params.get("as_of")
    if not text:
        return None
    try:
        # A plus sign that was not escaped in the address arrives as a blank.
        at = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise InvalidPeriod(f"{text!r} is not an instant: write 2026-11-24T10:00:00Z.") from None
    if at.tzinfo is None or not EARLIEST <= at <= now:
        raise InvalidPeriod("`as_of` is a past instant with its offset, as 2026-11-24T10:00:00Z.")
    return at
