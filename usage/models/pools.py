"""Pools: buckets that a family or a company shares, who may draw on them, and how much."""

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateTimeRangeField, RangeBoundary
from django.contrib.postgres.fields.ranges import RangeOperators
from django.db import models
from django.db.models import F, Func, Q
from django.utils.translation import gettext_lazy as _

from accounts.models import Account, Subscriber

# A cap that caps nothing: an amount, so that null never means unlimited.
UNCAPPED = 2**62

MEMBERSHIP = Func(
    "joined_at", "left_at", RangeBoundary(), function="tstzrange", output_field=DateTimeRangeField()
)


class Pool(models.Model):
    """Shared buckets under one payer. Its row is locked (after the members') to charge it."""

    class Kind(models.TextChoices):
        FAMILY = "family", _("Family")
        ENTERPRISE = "enterprise", _("Enterprise")

    account = models.ForeignKey(Account, models.PROTECT, related_name="pools")
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=12, choices=Kind)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("pool")
        verbose_name_plural = _("pools")

    def __str__(self) -> str:
        return self.name


class PoolMember(models.Model):
    """A subscriber may draw on a pool during [joined_at, left_at), up to its caps.

    Other caps end one row and begin the next, so that what held when stays readable.
    """

    pool = models.ForeignKey(Pool, models.PROTECT, related_name="members")
    subscriber = models.ForeignKey(Subscriber, models.PROTECT, related_name="memberships")
    cycle_cap_mt = models.PositiveBigIntegerField(default=UNCAPPED)
    day_cap_mt = models.PositiveBigIntegerField(default=UNCAPPED)
    joined_at = models.DateTimeField()
    left_at = models.DateTimeField(null=True, blank=True)
    joined_by = models.CharField(max_length=150, blank=True)
    left_by = models.CharField(max_length=150, blank=True)

    class Meta:
        verbose_name = _("pool member")
        verbose_name_plural = _("pool members")
        constraints = [
            models.CheckConstraint(
                name="pool_member_period_not_empty",
                condition=Q(left_at__isnull=True) | Q(left_at__gt=F("joined_at")),
            ),
            ExclusionConstraint(
                name="pool_member_in_one_pool_at_a_time",
                expressions=[
                    ("subscriber", RangeOperators.EQUAL),
                    (MEMBERSHIP, RangeOperators.OVERLAPS),
                ],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subscriber} - {self.pool}"


class PoolUsage(models.Model):
    """What a member took from a pool on a billing-zone day: what its caps are held against."""

    pool_id = models.BigIntegerField()
    subscriber_id = models.BigIntegerField()
    day = models.DateField()
    mt = models.BigIntegerField()

    class Meta:
        verbose_name = _("pool usage")
        verbose_name_plural = _("pool usage")
        constraints = [
            models.UniqueConstraint(
                name="pool_usage_once", fields=["subscriber_id", "day", "pool_id"]
            ),
            models.CheckConstraint(name="pool_usage_not_negative", condition=Q(mt__gte=0)),
        ]

    def __str__(self) -> str:
        return f"{self.subscriber_id} {self.day}"
