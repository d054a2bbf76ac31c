"""The charging profile, buckets, the ledger and overage: who may use how much, and who did."""

from datetime import UTC, datetime

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from accounts.models import Subscriber

from .pools import Pool

# valid_until of a bucket that never expires: an instant, so that null never means unlimited.
NEVER = datetime(9999, 12, 31, tzinfo=UTC)


class ChargingProfile(models.Model):
    """What the engine must know of a subscriber's plan, and the row that is locked to charge it."""

    class Beyond(models.TextChoices):
        STOP = "stop", _("Stop")
        PAYG = "payg", _("Pay as you go")
        RESTRICT = "restrict", _("Free model only")

    class Final(models.TextChoices):
        REDIRECT = "REDIRECT", _("To the top-up page")
        TERMINATE = "TERMINATE", _("End the session")
        RESTRICT = "RESTRICT", _("Go on with the free model")

    class Block(models.TextChoices):
        NONE = "", _("Open")
        EXHAUSTED = "quota_exhausted", _("Quota exhausted")
        SUSPENDED = "suspended", _("Suspended")
        TERMINATED = "terminated", _("Terminated")

    subscriber = models.OneToOneField(
        Subscriber, models.PROTECT, primary_key=True, related_name="charging_profile"
    )
    account_id = models.BigIntegerField()  # the payer, copied so that charging reads one row
    state = models.CharField(max_length=10)  # copy of the subscriber's state
    beyond = models.CharField(max_length=10, choices=Beyond, default=Beyond.STOP)
    payg_fen_per_million = models.PositiveBigIntegerField(default=0)
    payg_cap_mt = models.PositiveBigIntegerField(default=0)  # priced overage per cycle
    blocked = models.CharField(max_length=20, choices=Block, blank=True, default=Block.NONE)
    # What a session may hold beyond the buckets counts against the cap while it is held.
    reserved_payg_mt = models.PositiveBigIntegerField(default=0)
    pooled = models.BooleanField(default=False)  # is, or was, a member of a pool
    pool_first = models.BooleanField(default=False)  # the pool's buckets before its own
    final_action = models.CharField(max_length=10, choices=Final, default=Final.REDIRECT)
    free_model = models.CharField(max_length=100, blank=True)  # served when restricted
    noticed_cycle = models.DateField(null=True)
    noticed_percent = models.PositiveSmallIntegerField(default=0)
    # The billing day from which on its usage is summed for limits; null while it has none.
    limited_since = models.DateField(null=True, editable=False)
    # The process that knows all of its open buckets without reading them (usage/remembering.py).
    remembered_by = models.BigIntegerField(default=0, db_default=0, editable=False)

    class Meta:
        verbose_name = _("charging profile")
        verbose_name_plural = _("charging profiles")

    def __str__(self) -> str:
        return f"{self.subscriber_id}: {self.beyond}"


class Bucket(models.Model):
    """An amount of mt, granted at a price or free, valid in [valid_from, valid_until).

    The four amounts move only by ledger entries (a trigger applies them); reserved_mt is part of
    remaining_mt. An empty `model_ids` admits every model.
    """

    class Kind(models.TextChoices):
        ROLLOVER = "rollover", _("Rolled over")
        PLAN = "plan", _("Plan")
        PACK = "pack", _("Pack")
        PROMOTION = "promotion", _("Promotion")

    PRIORITIES = {Kind.ROLLOVER: 10, Kind.PLAN: 20, Kind.PACK: 30, Kind.PROMOTION: 40}

    subscriber = models.ForeignKey(
        Subscriber, models.PROTECT, null=True, blank=True, related_name="buckets", db_index=False
    )
    pool = models.ForeignKey(
        Pool, models.PROTECT, null=True, blank=True, related_name="buckets", db_index=False
    )
    kind = models.CharField(max_length=10, choices=Kind)
    name = models.CharField(max_length=100)
    name_en = models.CharField(max_length=100, blank=True)
    priority = models.PositiveSmallIntegerField()
    model_ids = ArrayField(models.BigIntegerField(), default=list, blank=True)
    # Minutes of the billing-zone day in which it pays; over midnight when from > until.
    minute_from = models.PositiveSmallIntegerField(default=0, db_default=0)
    minute_until = models.PositiveSmallIntegerField(default=1440, db_default=1440)
    # Of what is left at the close, this share, at most this much, goes on to the next month.
    rollover_percent = models.PositiveSmallIntegerField(default=0, db_default=0)
    rollover_cap_mt = models.PositiveBigIntegerField(default=0, db_default=0)
    granted_mt = models.BigIntegerField(default=0)
    adjusted_mt = models.BigIntegerField(default=0)
    remaining_mt = models.BigIntegerField(default=0)
    reserved_mt = models.BigIntegerField(default=0)
    valid_from = models.DateTimeField()
    valid_until = models.DateTimeField()
    close_at = models.DateTimeField()  # end of the grace time in which late usage still counts here
    closed_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    key = models.CharField(max_length=120, unique=True)  # what was granted, so never twice

    class Meta:
        verbose_name = _("bucket")
        verbose_name_plural = _("buckets")
        indexes = [
            models.Index(
                fields=["subscriber"], name="bucket_open", condition=Q(closed_at__isnull=True)
            ),
            models.Index(
                fields=["pool"],
                name="bucket_open_of_pool",
                condition=Q(closed_at__isnull=True, pool__isnull=False),
            ),
            models.Index(
                fields=["close_at"], name="bucket_to_close", condition=Q(closed_at__isnull=True)
            ),
            models.Index(
                fields=["subscriber", "valid_until"],
                name="bucket_closed",
                condition=Q(closed_at__isnull=False),
            ),
            models.Index(
                fields=["pool", "valid_until"],
                name="bucket_closed_of_pool",
                condition=Q(closed_at__isnull=False, pool__isnull=False),
            ),
        ]
        constraints = [
            models.CheckConstraint(
                name="bucket_has_one_owner",
                condition=Q(subscriber__isnull=False, pool__isnull=True)
                | Q(subscriber__isnull=True, pool__isnull=False),
            ),
            models.CheckConstraint(
                name="bucket_window_within_day",
                condition=Q(minute_from__lt=1440, minute_until__lte=1440)
                & ~Q(minute_from=F("minute_until")),
            ),
            models.CheckConstraint(
                name="bucket_rollover_is_a_share", condition=Q(rollover_percent__lte=100)
            ),
            models.CheckConstraint(
                name="bucket_reserved_within_remaining",
                condition=Q(reserved_mt__gte=0) & Q(reserved_mt__lte=F("remaining_mt")),
            ),
            models.CheckConstraint(
                name="bucket_remaining_within_granted",
                condition=Q(remaining_mt__gte=0)
                & Q(remaining_mt__lte=F("granted_mt") + F("adjusted_mt")),
            ),
            models.CheckConstraint(
                name="bucket_period_not_empty", condition=Q(valid_until__gt=F("valid_from"))
            ),
            models.CheckConstraint(
                name="bucket_closed_is_empty",
                condition=Q(closed_at__isnull=True) | Q(remaining_mt=0),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} #{self.pk}"


class LedgerEntry(models.Model):
    """One immutable movement of one bucket. Partitioned by month of recorded_at; append-only."""

    class Kind(models.TextChoices):
        GRANT = "grant", _("Grant")
        DEBIT = "debit", _("Debit")
        REFUND = "refund", _("Refund")
        EXPIRY = "expiry", _("Expiry")
        ROLLOVER = "rollover", _("Rollover")
        ADJUSTMENT = "adjustment", _("Adjustment")
        VOID = "void", _("Void")

    id = models.BigAutoField(primary_key=True)
    bucket_id = models.BigIntegerField()
    subscriber_id = models.BigIntegerField(null=True)  # the consumer; a pool's grant has none
    kind = models.CharField(max_length=10, choices=Kind)
    amount_mt = models.BigIntegerField()  # signed: what the bucket gains
    event_id = models.BigIntegerField(null=True)  # UsageEvent.id of a debit or refund
    recorded_at = models.DateTimeField()
    actor = models.CharField(max_length=150, blank=True)
    reason = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name = _("ledger entry")
        verbose_name_plural = _("ledger entries")

    def __str__(self) -> str:
        return f"{self.kind} {self.amount_mt} of bucket {self.bucket_id}"


class Overage(models.Model):
    """Tokens of one event beyond all buckets: priced if the plan sells them, else uncovered."""

    event_id = models.BigIntegerField()  # UsageEvent.id
    batch_id = models.BigIntegerField()
    subscriber_id = models.BigIntegerField()
    account_id = models.BigIntegerField()
    model_id = models.BigIntegerField()
    cycle = models.DateField()  # first day of the month of use in the billing zone
    occurred_at = models.DateTimeField()
    recorded_at = models.DateTimeField()
    mt = models.BigIntegerField()
    priced = models.BooleanField()
    fen_per_million = models.PositiveBigIntegerField()  # of standard tokens; 0 when uncovered
    # The invoice line that bills it: a plain number, since invoicing stands above this app.
    invoice_line_id = models.BigIntegerField(null=True, blank=True)

    class Meta:
        verbose_name = _("overage")
        verbose_name_plural = _("overage")
        indexes = [
            models.Index(fields=["subscriber_id", "cycle"], name="overage_subscriber_cycle"),
            models.Index(
                fields=["account_id", "cycle"],
                name="overage_unbilled",
                condition=Q(priced=True, invoice_line_id__isnull=True),
            ),
            models.Index(
                fields=["invoice_line_id"],
                name="overage_billed",
                condition=Q(invoice_line_id__isnull=False),
            ),
            # Rows come nearly in the order of their events.
            BrinIndex(fields=["event_id"], name="overage_event", autosummarize=True),
        ]
        constraints = [
            # Below zero: the part of an amended or voided event that is owed no more.
            models.CheckConstraint(name="overage_mt_not_zero", condition=~Q(mt=0)),
            models.CheckConstraint(
                name="overage_price_fits_kind",
                condition=Q(priced=True, fen_per_million__gt=0)
                | Q(priced=False, fen_per_million=0, invoice_line_id__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.mt} mt of event {self.event_id}"


class CycleOverage(models.Model):
    """Overage of a subscriber in one cycle, summed under its lock: what the cap is held against."""

    subscriber_id = models.BigIntegerField()
    cycle = models.DateField()
    priced_mt = models.BigIntegerField(default=0)
    uncovered_mt = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = _("overage of a cycle")
        verbose_name_plural = _("overage of cycles")
        constraints = [
            models.UniqueConstraint(name="cycle_overage_once", fields=["subscriber_id", "cycle"])
        ]

    def __str__(self) -> str:
        return f"{self.subscriber_id} {self.cycle:%Y-%m}"
