"""Corrections: mistakes are mended by further rows, never by rewriting what was recorded."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .balances import Bucket


class Amendment(models.Model):
    """A further row that names a usage event and says by how much it changes. Append-only.

    `id` comes from the numbers of events (batch x 16,384 + position), so that ledger entries can
    name it as they name an event. All amounts are differences and may be negative.
    """

    class Kind(models.TextChoices):
        AMEND = "amend", _("Amended")
        VOID = "void", _("Voided")
        RERATE = "rerate", _("Rated again")

    id = models.BigIntegerField(primary_key=True)
    batch_id = models.BigIntegerField(db_index=True)
    event_id = models.BigIntegerField(db_index=True)  # UsageEvent.id
    subscriber_id = models.BigIntegerField()
    model_id = models.BigIntegerField()
    weight_id = models.BigIntegerField()
    kind = models.CharField(max_length=10, choices=Kind)
    occurred_at = models.DateTimeField(db_index=True)  # of the event
    # What was added came after the buckets of its time had closed: the balance of now paid.
    late = models.BooleanField(default=False, db_default=False)
    recorded_at = models.DateTimeField()
    input_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    mt = models.BigIntegerField()
    actor = models.CharField(max_length=150)
    reason = models.CharField(max_length=500)
    key = models.CharField(max_length=200, unique=True)

    class Meta:
        verbose_name = _("amendment")
        verbose_name_plural = _("amendments")
        indexes = [
            models.Index(fields=["subscriber_id", "occurred_at"], name="amendment_subscriber_time")
        ]
        constraints = [
            models.CheckConstraint(
                name="amendment_has_actor_and_reason", condition=~Q(actor="") & ~Q(reason="")
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} of event {self.event_id}"


class Rerating(models.Model):
    """A period rated again after a weight was wrong: first a dry run, then, if wanted, applied."""

    class State(models.TextChoices):
        DRY = "dry", _("Dry run")
        APPLYING = "applying", _("Being applied")
        APPLIED = "applied", _("Applied")

    model_id = models.BigIntegerField()
    start = models.DateTimeField()
    end = models.DateTimeField()
    state = models.CharField(max_length=10, choices=State, default=State.DRY)
    report = models.JSONField(default=dict)  # events, mt difference, and that of each subscriber
    actor = models.CharField(max_length=150)
    reason = models.CharField(max_length=500)
    made_at = models.DateTimeField()
    applied_by = models.CharField(max_length=150, blank=True)
    worked_at = models.DateTimeField(null=True, blank=True)  # a worker's last sign of life
    applied_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("rerating")
        verbose_name_plural = _("reratings")

    def __str__(self) -> str:
        return f"model {self.model_id} {self.start:%Y-%m-%d}/{self.end:%Y-%m-%d}"


class Movement(models.Model):
    """A movement that staff or a subscriber asked for, once per key: adjustment, void, transfer.

    Keeps what the ledger entries cannot say: both ends, and the amounts before and after.
    """

    class Kind(models.TextChoices):
        ADJUSTMENT = "adjustment", _("Adjustment")
        VOID = "void", _("Void")
        TRANSFER = "transfer", _("Transfer")

    kind = models.CharField(max_length=10, choices=Kind)
    key = models.CharField(max_length=120, unique=True)
    bucket = models.ForeignKey(Bucket, models.PROTECT, related_name="movements")
    other_bucket = models.ForeignKey(
        Bucket, models.PROTECT, null=True, blank=True, related_name="incoming_movements"
    )
    amount_mt = models.BigIntegerField()
    before_mt = models.BigIntegerField()
    after_mt = models.BigIntegerField()
    other_before_mt = models.BigIntegerField(null=True, blank=True)
    other_after_mt = models.BigIntegerField(null=True, blank=True)
    actor = models.CharField(max_length=150)
    reason = models.CharField(max_length=500)
    at = models.DateTimeField()

    class Meta:
        verbose_name = _("movement")
        verbose_name_plural = _("movements")

    def __str__(self) -> str:
        return f"{self.kind} {self.amount_mt} mt"
