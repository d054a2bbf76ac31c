"""What was sold: the catalogue as immutable versions, subscriptions, orders and charges."""

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, DateTimeRangeField, RangeBoundary
from django.contrib.postgres.fields.ranges import RangeOperators
from django.db import models
from django.db.models import F, Func, Q
from django.utils.translation import gettext_lazy as _

from accounts.models import Account, Subscriber
from usage.models import ChargingProfile, Pool
from usage.waterfall import WHOLE_DAY

PERIOD = Func(
    "starts_at", "ends_at", RangeBoundary(), function="tstzrange", output_field=DateTimeRangeField()
)


class Plan(models.Model):
    """Something the carrier sells, known by its code; what it offers stands in its versions."""

    class Kind(models.TextChoices):
        MONTHLY = "monthly", _("Monthly plan")
        PACK = "pack", _("Pack")
        PAYG = "payg", _("Pay as you go")

    code = models.CharField(max_length=40, unique=True)
    kind = models.CharField(max_length=10, choices=Kind)

    class Meta:
        verbose_name = _("plan")
        verbose_name_plural = _("plans")

    def __str__(self) -> str:
        return self.code


class PlanVersion(models.Model):
    """The terms of a plan as they were loaded; immutable, the newest on sale is what is sold."""

    plan = models.ForeignKey(Plan, models.PROTECT, related_name="versions")
    version = models.PositiveIntegerField()
    checksum = models.CharField(max_length=64)
    name = models.CharField(max_length=100)
    name_en = models.CharField(max_length=100)
    audience = models.CharField(max_length=20)  # personal, developer
    price_fen = models.PositiveBigIntegerField()  # a month, or once for a pack; tax included
    tokens = models.PositiveBigIntegerField()  # standard tokens granted a month, or by a pack
    validity_days = models.PositiveIntegerField(default=0)  # packs: from purchase; plans: 0
    priority = models.PositiveSmallIntegerField()
    model_codes = ArrayField(models.CharField(max_length=100), default=list, blank=True)
    beyond = models.CharField(max_length=10, choices=ChargingProfile.Beyond)
    payg_fen_per_million = models.PositiveBigIntegerField(default=0)
    payg_cap_tokens = models.PositiveBigIntegerField(default=0)  # a cycle
    # Of what a month leaves, this share, at most this much, is good to the end of the next month.
    rollover_percent = models.PositiveSmallIntegerField(default=0, db_default=0)
    rollover_cap_tokens = models.PositiveBigIntegerField(default=0, db_default=0)
    # Minutes of the billing-zone day in which its tokens pay; over midnight when from > until.
    minute_from = models.PositiveSmallIntegerField(default=0, db_default=0)
    minute_until = models.PositiveSmallIntegerField(default=WHOLE_DAY, db_default=WHOLE_DAY)
    final_action = models.CharField(
        max_length=10,
        choices=ChargingProfile.Final,
        default=ChargingProfile.Final.REDIRECT,
        db_default=ChargingProfile.Final.REDIRECT,
    )
    free_model = models.CharField(
        max_length=100, blank=True, db_default=""
    )  # served when restricted
    pool_first = models.BooleanField(
        default=False, db_default=False
    )  # a pool's tokens before its own
    # Its tokens go into the account's pool, which a plan opens as one of this kind; empty: own.
    pool_kind = models.CharField(
        max_length=12, choices=Pool.Kind, blank=True, default="", db_default=""
    )
    tax_category = models.CharField(max_length=40)
    on_sale = models.BooleanField(default=True)
    loaded_at = models.DateTimeField()

    class Meta:
        verbose_name = _("plan version")
        verbose_name_plural = _("plan versions")
        constraints = [
            models.UniqueConstraint(name="plan_version_once", fields=["plan", "version"]),
            models.CheckConstraint(
                name="plan_version_payg_is_priced",
                condition=~Q(beyond="payg") | Q(payg_fen_per_million__gt=0, payg_cap_tokens__gt=0),
            ),
            models.CheckConstraint(
                name="plan_version_rollover_is_a_share", condition=Q(rollover_percent__lte=100)
            ),
            models.CheckConstraint(
                name="plan_version_hours_within_day",
                condition=Q(minute_from__lt=1440, minute_until__lte=1440)
                & ~Q(minute_from=F("minute_until")),
            ),
            models.CheckConstraint(
                name="plan_version_restricts_to_a_model",
                condition=~Q(final_action="RESTRICT") | ~Q(free_model=""),
            ),
            models.CheckConstraint(
                name="plan_version_fills_a_pool_with_tokens",
                condition=Q(pool_kind="") | Q(tokens__gt=0),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.plan} v{self.version}"


class Subscription(models.Model):
    """A subscriber holds a plan during [starts_at, ends_at); a null ends_at is open-ended.

    Price and tokens are copied from the version at purchase, so a new version changes no past bill.
    """

    subscriber = models.ForeignKey(Subscriber, models.PROTECT, related_name="subscriptions")
    version = models.ForeignKey(PlanVersion, models.PROTECT)
    price_fen = models.PositiveBigIntegerField()
    tokens = models.PositiveBigIntegerField()
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    # First instant of the first cycle that is not granted yet: what the renewal looks for.
    renews_at = models.DateTimeField(db_index=True)
    # Whose buckets it fills, settled at purchase; null: the subscriber's own.
    pool = models.ForeignKey(
        Pool, models.PROTECT, null=True, blank=True, related_name="subscriptions"
    )
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("subscription")
        verbose_name_plural = _("subscriptions")
        constraints = [
            models.CheckConstraint(
                name="subscription_period_not_empty",
                condition=Q(ends_at__isnull=True) | Q(ends_at__gt=F("starts_at")),
            ),
            ExclusionConstraint(
                name="subscription_periods_disjoint",
                expressions=[
                    ("subscriber", RangeOperators.EQUAL),
                    (PERIOD, RangeOperators.OVERLAPS),
                ],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.version} of {self.subscriber}"


class Order(models.Model):
    """A subscriber's purchase: of a pack, on the bill or paid before it is granted."""

    class State(models.TextChoices):
        PENDING = "pending", _("Awaiting payment")
        FULFILLED = "fulfilled", _("Fulfilled")
        CANCELLED = "cancelled", _("Cancelled")

    class Pay(models.TextChoices):
        BILL = "bill", _("On the bill")
        NOW = "now", _("Now")

    subscriber = models.ForeignKey(Subscriber, models.PROTECT, related_name="orders")
    version = models.ForeignKey(PlanVersion, models.PROTECT)
    amount_fen = models.PositiveBigIntegerField()
    pay = models.CharField(max_length=10, choices=Pay)
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    key = models.CharField(max_length=120)  # the caller's Idempotency-Key
    # Where the pack goes, settled at purchase; null: to the subscriber.
    pool = models.ForeignKey(Pool, models.PROTECT, null=True, blank=True, related_name="orders")
    created_at = models.DateTimeField()
    fulfilled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("order")
        verbose_name_plural = _("orders")
        constraints = [
            models.UniqueConstraint(name="order_once_per_key", fields=["subscriber", "key"])
        ]
        indexes = [  # few at a time: what is paid or given up leaves it
            models.Index(name="order_pending", fields=["created_at"], condition=Q(state="pending"))
        ]

    def __str__(self) -> str:
        return f"{self.version} for {self.subscriber}"


class Charge(models.Model):
    """Something owed (negative: credited) that goes on the invoice of its cycle. Append-only."""

    class Kind(models.TextChoices):
        FEE = "fee", _("Monthly fee")
        PACK = "pack", _("Pack")
        CREDIT = "credit", _("Credit")

    account = models.ForeignKey(Account, models.PROTECT, related_name="charges")
    subscriber = models.ForeignKey(Subscriber, models.PROTECT, related_name="charges")
    kind = models.CharField(max_length=10, choices=Kind)
    version = models.ForeignKey(PlanVersion, models.PROTECT, null=True, blank=True)
    order = models.OneToOneField(Order, models.PROTECT, null=True, blank=True)
    name = models.CharField(max_length=100)
    name_en = models.CharField(max_length=100)
    amount_fen = models.BigIntegerField()  # tax included
    tax_category = models.CharField(max_length=40)
    cycle = models.DateField()  # first day of the month in the billing zone
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    created_at = models.DateTimeField()
    key = models.CharField(max_length=120, unique=True)  # what is charged, so never twice

    class Meta:
        verbose_name = _("charge")
        verbose_name_plural = _("charges")
        indexes = [models.Index(fields=["cycle", "account"], name="charge_cycle_account")]
        constraints = [
            models.CheckConstraint(
                name="charge_sign_fits_kind",
                condition=Q(kind="credit", amount_fen__lt=0)
                | (~Q(kind="credit") & Q(amount_fen__gte=0)),
            )
        ]

    def __str__(self) -> str:
        return self.key
