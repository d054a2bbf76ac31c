"""Pools for staff and carrier systems: who shares, up to which caps, and what is granted."""

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import KeyAuthentication
from accounts.pagination import IdPages
from accounts.permissions import actor_of, scope_required
from config import clock

from .. import pools
from ..balances import pool_buckets_as_of
from ..ledger import MOST_TOKENS, Grant
from ..models import UNCAPPED, Bucket, Pool, PoolMember
from ..movements import LONGEST_KEY, KeyOrReasonMissing
from ..periods import cycle_of
from .balances import AS_OF, past_instant

MOST_BUCKETS = 500  # of a pool, in one answer
READ_OR_WRITE = scope_required("accounts:read", "accounts:write")


class PoolOutput(serializers.ModelSerializer[Pool]):
    account_id = serializers.IntegerField(read_only=True)

    class Meta:
        model = Pool
        fields = ["id", "account_id", "name", "kind", "created_at"]
        read_only_fields = fields


class PoolInput(serializers.Serializer[Any]):
    account_id = serializers.IntegerField(min_value=1)
    name = serializers.CharField(max_length=100)
    kind = serializers.ChoiceField(choices=Pool.Kind.choices, default=Pool.Kind.FAMILY)


class PoolBucketOutput(serializers.ModelSerializer[Bucket]):
    class Meta:
        model = Bucket
        fields = [
            "id",
            "kind",
            "name",
            "name_en",
            "granted_mt",
            "adjusted_mt",
            "remaining_mt",
            "reserved_mt",
            "valid_from",
            "valid_until",
        ]
        read_only_fields = fields


class PoolDetail(PoolOutput):
    """A pool with its open buckets."""

    buckets = PoolBucketOutput(many=True)

    class Meta(PoolOutput.Meta):
        fields = [*PoolOutput.Meta.fields, "buckets"]
        read_only_fields = fields


class CapFields(serializers.Serializer[Any]):
    cycle_cap = serializers.IntegerField(min_value=0, max_value=MOST_TOKENS, required=False)
    day_cap = serializers.IntegerField(min_value=0, max_value=MOST_TOKENS, required=False)


class CapsInput(CapFields):
    """Caps in standard tokens; one that is left out caps nothing."""

    def caps_mt(self) -> pools.Caps:
        """Both caps; one that is not given caps nothing."""
        month, day = (self.validated_data.get(name) for name in ("cycle_cap", "day_cap"))
        return {
            "cycle_cap_mt": UNCAPPED if month is None else int(month) * 1000,
            "day_cap_mt": UNCAPPED if day is None else int(day) * 1000,
        }


class CapsChange(CapFields):
    """Other caps in standard tokens; one that is not named stays as it is. `lift` names caps that
    shall hold no more."""

    lift = serializers.ListField(
        child=serializers.ChoiceField(choices=["cycle_cap", "day_cap"]), max_length=2, default=list
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if any(name in attrs for name in attrs["lift"]):
            raise serializers.ValidationError("Give a cap or lift it, not both.")
        return attrs

    def caps_mt(self) -> dict[str, int]:
        """The caps that change."""
        given = self.validated_data
        lifted = {f"{name}_mt": UNCAPPED for name in given["lift"]}
        names = ("cycle_cap", "day_cap")
        return lifted | {f"{name}_mt": given[name] * 1000 for name in names if name in given}


class JoinInput(CapsInput):
    subscriber_id = serializers.IntegerField(min_value=1)


class MemberOutput(serializers.ModelSerializer[PoolMember]):
    """A membership; `used_mt` is what the subscriber took from the pool this month."""

    pool_id = serializers.IntegerField(read_only=True)
    subscriber_id = serializers.IntegerField(read_only=True)
    msisdn = serializers.CharField(source="subscriber.msisdn", read_only=True)
    used_mt = serializers.SerializerMethodField()

    class Meta:
        model = PoolMember
        fields = [
            "pool_id",
            "subscriber_id",
            "msisdn",
            "cycle_cap_mt",
            "day_cap_mt",
            "joined_at",
            "left_at",
            "used_mt",
        ]
        read_only_fields = fields

    def get_used_mt(self, member: PoolMember) -> int:
        """Millitokens of the running cycle."""
        used: dict[int, int] = self.context.get("used", {})
        return used.get(member.subscriber_id, 0)


class PoolGrantInput(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=100)
    name_en = serializers.CharField(max_length=100, default="", allow_blank=True)
    tokens = serializers.IntegerField(min_value=1, max_value=MOST_TOKENS)
    kind = serializers.ChoiceField(choices=Bucket.Kind.choices, default=Bucket.Kind.PACK)
    valid_from = serializers.DateTimeField(required=False)
    valid_until = serializers.DateTimeField()
    reason = serializers.CharField(max_length=500)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["valid_until"] <= attrs.get("valid_from", clock.now()):
            raise serializers.ValidationError("valid_until must lie after valid_from.")
        return attrs


class StaffView(APIView):
    authentication_classes = [KeyAuthentication]
    permission_classes = [READ_OR_WRITE]


class PoolCollection(GenericAPIView[Pool]):
    """Pools by id, of one account if told; POST makes one."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [READ_OR_WRITE]
    pagination_class = IdPages
    queryset = Pool.objects.all()
    serializer_class = PoolOutput

    @extend_schema(
        operation_id="pools_list",
        parameters=[OpenApiParameter("account_id", int)],
        responses=PoolOutput(many=True),
    )
    def get(self, request: Request) -> Response:
        found: QuerySet[Pool] = self.get_queryset()
        if "account_id" in request.query_params:
            asked = AccountQuery(data=request.query_params)
            asked.is_valid(raise_exception=True)
            found = found.filter(account_id=asked.validated_data["account_id"])
        return self.get_paginated_response(
            PoolOutput(self.paginate_queryset(found), many=True).data
        )

    @extend_schema(request=PoolInput, responses={201: PoolOutput})
    def post(self, request: Request) -> Response:
        asked = PoolInput(data=request.data)
        asked.is_valid(raise_exception=True)
        pool = pools.create_pool(**asked.validated_data, now=clock.now())
        return Response(PoolOutput(pool).data, status=201)


class AccountQuery(serializers.Serializer[Any]):
    account_id = serializers.IntegerField(min_value=1)


class PoolOne(StaffView):
    """One pool with its open buckets; with `as_of`, with those that were valid at that instant, by
    what the ledger had recorded then (what sessions held counts as left)."""

    @extend_schema(parameters=[AS_OF], responses=PoolDetail)
    def get(self, request: Request, pool_id: int) -> Response:
        shown = PoolOutput(pools.known(pool_id)).data
        at = past_instant(request, clock.now())
        buckets: Iterable[Bucket]
        if at is None:
            opened = Bucket.objects.filter(pool_id=pool_id, closed_at__isnull=True)
            buckets = opened.order_by("id")[:MOST_BUCKETS]
        else:
            buckets = pool_buckets_as_of(pool_id=pool_id, at=at)[:MOST_BUCKETS]
        return Response(shown | {"buckets": PoolBucketOutput(buckets, many=True).data})


class PoolMembers(GenericAPIView[PoolMember]):
    """Present members with what they took this month; POST lets one in (200 if in already)."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [READ_OR_WRITE]
    pagination_class = IdPages
    queryset = PoolMember.objects.select_related("subscriber")
    serializer_class = MemberOutput

    @extend_schema(operation_id="pool_members_list", responses=MemberOutput(many=True))
    def get(self, request: Request, pool_id: int) -> Response:
        pool = pools.known(pool_id)
        present = self.get_queryset().filter(pool=pool, left_at__isnull=True)
        page = self.paginate_queryset(present) or []
        ids = [member.subscriber_id for member in page]
        used = pools.used_by(pool_id=pool_id, subscriber_ids=ids, cycle=cycle_of(clock.now()))
        return self.get_paginated_response(
            MemberOutput(page, many=True, context={"used": used}).data
        )

    @extend_schema(request=JoinInput, responses={201: MemberOutput, 200: MemberOutput})
    def post(self, request: Request, pool_id: int) -> Response:
        asked = JoinInput(data=request.data)
        asked.is_valid(raise_exception=True)
        member, created = pools.join(
            pool_id=pool_id,
            subscriber_id=asked.validated_data["subscriber_id"],
            actor=actor_of(request),
            now=clock.now(),
            **asked.caps_mt(),
        )
        return Response(MemberOutput(member).data, status=201 if created else 200)


class PoolMemberOne(StaffView):
    """A member's caps, and its way out."""

    @extend_schema(request=CapsChange, responses=MemberOutput)
    def patch(self, request: Request, pool_id: int, subscriber_id: int) -> Response:
        asked = CapsChange(data=request.data)
        asked.is_valid(raise_exception=True)
        member = pools.set_caps(
            pool_id=pool_id,
            subscriber_id=subscriber_id,
            actor=actor_of(request),
            now=clock.now(),
            **asked.caps_mt(),
        )
        return Response(MemberOutput(member).data)

    @extend_schema(responses=MemberOutput)
    def delete(self, request: Request, pool_id: int, subscriber_id: int) -> Response:
        """Ends the membership: 200 with it, since its history stays."""
        member = pools.leave(
            pool_id=pool_id,
            subscriber_id=subscriber_id,
            actor=actor_of(request),
            now=clock.now(),
        )
        return Response(MemberOutput(member).data)


class PoolGrants(StaffView):
    """Tokens for a pool, once per Idempotency-Key."""

    permission_classes = [scope_required("adjustments:write")]

    @extend_schema(
        parameters=[OpenApiParameter("Idempotency-Key", str, "header", required=True)],
        request=PoolGrantInput,
        responses={201: PoolBucketOutput, 200: PoolBucketOutput},
    )
    def post(self, request: Request, pool_id: int) -> Response:
        asked = PoolGrantInput(data=request.data)
        asked.is_valid(raise_exception=True)
        key = request.headers.get("Idempotency-Key", "")
        if not 0 < len(key) <= LONGEST_KEY:
            raise KeyOrReasonMissing(f"Send an Idempotency-Key of 1 to {LONGEST_KEY} characters.")
        now, given = clock.now(), asked.validated_data
        wanted = Grant(
            pool_id=pool_id,
            kind=given["kind"],
            name=given["name"],
            name_en=given["name_en"],
            amount_mt=given["tokens"] * 1000,
            valid_from=given.get("valid_from", now),
            valid_until=given["valid_until"],
            key=f"pool:{key}",
        )
        bucket, created = pools.grant_to_pool(
            wanted=wanted, actor=actor_of(request), reason=given["reason"], now=now
        )
        return Response(PoolBucketOutput(bucket).data, status=201 if created else 200)
