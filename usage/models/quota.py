"""Quota sessions between a node and the charging engine, their answers, and limits at reserve."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from accounts.models import ApiKey, Subscriber


class QuotaSession(models.Model):
    """Reserve -> report -> release. What it holds is the buckets' reserved_mt, bucket for bucket.

    Changed only by whoever holds the subscriber's charging profile.
    """

    class State(models.TextChoices):
        OPEN = "open", _("Holding a grant")
        IDLE = "idle", _("Holding nothing")
        EXPIRED = "expired", _("Expired")
        RELEASED = "released", _("Released")

    ref = models.CharField(max_length=40, unique=True)
    node_id = models.BigIntegerField()
    session = models.CharField(max_length=200)  # the node's own name for it
    subject = models.CharField(max_length=100)
    subscriber_id = models.BigIntegerField(null=True)  # null: the subject is unknown
    api_key_id = models.BigIntegerField(null=True)
    model = models.CharField(max_length=200)
    model_id = models.BigIntegerField(null=True)
    state = models.CharField(max_length=10, choices=State)
    sequence = models.BigIntegerField()
    granted_mt = models.BigIntegerField(default=0)
    hold_bucket_ids = ArrayField(models.BigIntegerField(), default=list)
    hold_mts = ArrayField(models.BigIntegerField(), default=list)
    hold_payg_mt = models.BigIntegerField(default=0)  # beyond the buckets, within the cap
    notify_url = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField()
    supervised_until = models.DateTimeField()  # then the hold goes back by itself

    class Meta:
        verbose_name = _("quota session")
        verbose_name_plural = _("quota sessions")
        indexes = [
            models.Index(
                fields=["supervised_until"], name="quota_session_open", condition=Q(state="open")
            ),
            models.Index(
                fields=["subscriber_id"],
                name="quota_session_living",
                condition=Q(state__in=["open", "idle"]),
            ),
        ]
        constraints = [
            models.UniqueConstraint(name="quota_session_once", fields=["node_id", "session"]),
            models.CheckConstraint(
                name="quota_session_holds_only_when_open",
                condition=Q(state="open") | Q(hold_bucket_ids=[], hold_mts=[], hold_payg_mt=0),
            ),
        ]

    def __str__(self) -> str:
        return self.ref


class QuotaAnswer(models.Model):
    """The answer to one (session, sequence), with a digest of what was asked: sent again as is."""

    session_id = models.BigIntegerField()
    sequence = models.BigIntegerField()
    digest = models.BinaryField()
    status = models.PositiveSmallIntegerField()
    body = models.JSONField()
    at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = _("quota answer")
        verbose_name_plural = _("quota answers")
        constraints = [
            models.UniqueConstraint(name="quota_answer_once", fields=["session_id", "sequence"])
        ]

    def __str__(self) -> str:
        return f"{self.session_id}/{self.sequence}"


class UsageLimit(models.Model):
    """A limit besides the plan, of a subscriber or one of its keys, held at reserve."""

    class Window(models.TextChoices):
        MINUTE = "minute", _("Minute")
        DAY = "day", _("Day")
        WEEK = "week", _("Week")
        MONTH = "month", _("Month")

    class Unit(models.TextChoices):
        MT = "mt", _("Millitokens")
        REQUESTS = "requests", _("Requests")

    subscriber = models.ForeignKey(Subscriber, models.PROTECT, related_name="usage_limits")
    api_key = models.ForeignKey(ApiKey, models.PROTECT, null=True, blank=True)
    window = models.CharField(max_length=10, choices=Window)
    unit = models.CharField(max_length=10, choices=Unit)
    amount = models.PositiveBigIntegerField()
    # Requests are counted here, in the window that began then.
    counted_from = models.DateTimeField(null=True, blank=True)
    counted = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name = _("usage limit")
        verbose_name_plural = _("usage limits")
        constraints = [
            models.UniqueConstraint(
                name="usage_limit_once",
                fields=["subscriber", "api_key", "window", "unit"],
                nulls_distinct=False,
            )
        ]

    def __str__(self) -> str:
        return f"{self.amount} {self.unit} a {self.window}"


class LimitUsage(models.Model):
    """What a subscriber with limits used on a billing-zone day, corrections included; of one of
    its keys, or (0) whatever key the events name."""

    subscriber_id = models.BigIntegerField()
    api_key_id = models.BigIntegerField()
    day = models.DateField()
    mt = models.BigIntegerField()

    class Meta:
        verbose_name = _("usage counted for limits")
        verbose_name_plural = _("usage counted for limits")
        constraints = [
            models.UniqueConstraint(
                name="limit_usage_once", fields=["subscriber_id", "api_key_id", "day"]
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subscriber_id} {self.day}"
