"""What is owed: tax rates, invoices with their lines, payments, and the proof that all adds up."""

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateRangeField, RangeBoundary
from django.contrib.postgres.fields.ranges import RangeOperators
from django.db import models
from django.db.models import F, Func, Q
from django.utils.translation import gettext_lazy as _

from accounts.models import Account
from plans.models import Charge, Order
from usage.periods import day_of

DAYS = Func(
    "valid_from",
    "valid_until",
    RangeBoundary(),
    function="daterange",
    output_field=DateRangeField(),
)


class TaxRate(models.Model):
    """VAT of a category in basis points during [valid_from, valid_until), billing-zone days."""

    category = models.CharField(max_length=40)
    rate_bp = models.PositiveIntegerField()
    valid_from = models.DateField()
    valid_until = models.DateField(null=True, blank=True)

    class Meta:
        verbose_name = _("tax rate")
        verbose_name_plural = _("tax rates")
        constraints = [
            models.CheckConstraint(name="tax_rate_below_whole", condition=Q(rate_bp__lt=10_000)),
            models.CheckConstraint(
                name="tax_rate_period_not_empty",
                condition=Q(valid_until__isnull=True) | Q(valid_until__gt=F("valid_from")),
            ),
            ExclusionConstraint(
                name="tax_rate_periods_disjoint",
                expressions=[("category", RangeOperators.EQUAL), (DAYS, RangeOperators.OVERLAPS)],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.category} {self.rate_bp} bp from {self.valid_from}"


class InvoiceSeries(models.Model):
    """Gap-free numbers: the row is locked while a number is drawn, in the invoice's transaction.

    A number is year (2 digits), region (2), channel (1) and the counter (15): 20 digits.
    """

    year = models.PositiveSmallIntegerField()
    region = models.PositiveSmallIntegerField()
    channel = models.PositiveSmallIntegerField()
    last_number = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name = _("invoice series")
        verbose_name_plural = _("invoice series")
        constraints = [
            models.UniqueConstraint(
                name="invoice_series_once", fields=["year", "region", "channel"]
            )
        ]

    def __str__(self) -> str:
        return f"{self.year}-{self.region}-{self.channel}"


class BillRun(models.Model):
    """The billing of one cycle: started, resumed or finished; there is one row per cycle."""

    class State(models.TextChoices):
        RUNNING = "running", _("Running")
        DONE = "done", _("Done")

    cycle = models.DateField(unique=True)
    state = models.CharField(max_length=10, choices=State, default=State.RUNNING)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("bill run")
        verbose_name_plural = _("bill runs")

    def __str__(self) -> str:
        return f"{self.cycle:%Y-%m}"


class Invoice(models.Model):
    """What an account owes for one cycle. Finalised rows refuse UPDATE and DELETE.

    Whether it is paid is read from its payments, so that the document never changes.
    """

    class State(models.TextChoices):
        DRAFT = "draft", _("Draft")
        FINAL = "final", _("Finalised")

    # The unique constraints that begin with account and invoice are their indexes.
    account = models.ForeignKey(Account, models.PROTECT, related_name="invoices", db_index=False)
    cycle = models.DateField()
    state = models.CharField(max_length=10, choices=State, default=State.DRAFT)
    number = models.CharField(max_length=20)
    buyer_name = models.CharField(max_length=200)
    buyer_tax_number = models.CharField(max_length=20, blank=True)
    seller_name = models.CharField(max_length=200)
    seller_tax_number = models.CharField(max_length=20)
    net_fen = models.BigIntegerField()
    vat_fen = models.BigIntegerField()
    gross_fen = models.BigIntegerField()
    prepaid_fen = models.BigIntegerField(
        default=0
    )  # of it, paid before: packs bought and paid at once
    issued_at = models.DateTimeField()
    due_at = models.DateTimeField()

    class Meta:
        verbose_name = _("invoice")
        verbose_name_plural = _("invoices")
        constraints = [
            models.UniqueConstraint(name="invoice_once_per_cycle", fields=["account", "cycle"]),
            models.UniqueConstraint(name="invoice_number_once", fields=["number"]),
            models.CheckConstraint(
                name="invoice_gross_is_net_and_vat",
                condition=Q(gross_fen=F("net_fen") + F("vat_fen")),
            ),
            models.CheckConstraint(
                name="invoice_number_is_20_digits", condition=Q(number__regex=r"^[0-9]{20}$")
            ),
        ]

    def __str__(self) -> str:
        return self.number


class InvoiceLine(models.Model):
    """One amount of an invoice, computed once and rounded here. Frozen with its invoice."""

    class Kind(models.TextChoices):
        FEE = "fee", _("Monthly fee")
        PACK = "pack", _("Pack")
        CREDIT = "credit", _("Credit")
        OVERAGE = "overage", _("Overage")

    # Drawn from its sequence before the insert, so that overage rows can name their line.
    # The guards of migration 0006 hold the reference; the unique constraint is its index.
    invoice = models.ForeignKey(
        Invoice, models.PROTECT, related_name="lines", db_index=False, db_constraint=False
    )
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=Kind)
    charge = models.OneToOneField(
        Charge, models.PROTECT, null=True, blank=True, related_name="invoice_line"
    )
    name = models.CharField(max_length=100)
    name_en = models.CharField(max_length=100)
    msisdn = models.CharField(max_length=16, blank=True)
    model_code = models.CharField(max_length=100, blank=True)
    usage_cycle = (
        models.DateField()
    )  # the month it is owed for; earlier than the invoice's when late
    quantity_mt = models.BigIntegerField(null=True, blank=True)  # overage, exactly
    fen_per_million = models.PositiveBigIntegerField(null=True, blank=True)
    tax_category = models.CharField(max_length=40)
    rate_bp = models.PositiveIntegerField()
    net_fen = models.BigIntegerField()
    vat_fen = models.BigIntegerField()
    gross_fen = models.BigIntegerField()

    class Meta:
        verbose_name = _("invoice line")
        verbose_name_plural = _("invoice lines")
        constraints = [
            models.UniqueConstraint(name="invoice_line_position", fields=["invoice", "position"]),
            models.CheckConstraint(
                name="invoice_line_gross_is_net_and_vat",
                condition=Q(gross_fen=F("net_fen") + F("vat_fen")),
            ),
            models.CheckConstraint(
                name="invoice_line_kind_fits_source",
                condition=Q(kind="overage", charge__isnull=True, quantity_mt__isnull=False)
                | (~Q(kind="overage") & Q(charge__isnull=False)),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.invoice_id}/{self.position}"


class Payment(models.Model):
    """Money for an invoice or for an order, by Stripe or offline. Its state only moves forward."""

    class Method(models.TextChoices):
        CARD = "card", _("Card")
        ALIPAY = "alipay", _("Alipay")
        WECHAT = "wechat_pay", _("WeChat Pay")
        OFFLINE = "offline", _("Offline")

    class State(models.TextChoices):
        PENDING = "pending", _("Pending")
        SUCCEEDED = "succeeded", _("Succeeded")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")

    account = models.ForeignKey(Account, models.PROTECT, related_name="payments")
    invoice = models.ForeignKey(
        Invoice, models.PROTECT, null=True, blank=True, related_name="payments"
    )
    order = models.ForeignKey(Order, models.PROTECT, null=True, blank=True, related_name="payments")
    method = models.CharField(max_length=12, choices=Method)
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    amount_fen = models.PositiveBigIntegerField()
    stripe_id = models.CharField(max_length=100, blank=True, db_index=True)
    key = models.CharField(max_length=120)  # the caller's Idempotency-Key
    confirmed_by = models.CharField(max_length=150, blank=True)
    failure = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField()
    settled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("payment")
        verbose_name_plural = _("payments")
        constraints = [
            models.UniqueConstraint(name="payment_once_per_key", fields=["account", "key"]),
            models.CheckConstraint(name="payment_amount_positive", condition=Q(amount_fen__gt=0)),
            models.CheckConstraint(
                name="payment_pays_one_thing",
                condition=Q(invoice__isnull=True, order__isnull=False)
                | Q(invoice__isnull=False, order__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.method} {self.amount_fen} fen"


class WebhookEvent(models.Model):
    """A verified message of the payment provider, stored before it is handled, handled once."""

    provider_id = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=100)
    body = models.JSONField()
    received_at = models.DateTimeField()
    handled_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=300, blank=True)

    class Meta:
        verbose_name = _("webhook event")
        verbose_name_plural = _("webhook events")
        indexes = [
            models.Index(
                fields=["received_at"],
                name="webhook_unhandled",
                condition=Q(handled_at__isnull=True),
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.provider_id}"


class AssuranceResult(models.Model):
    """The proof of one day or cycle as it was found: what the scheduled assurance leaves behind."""

    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    proven = models.BooleanField()
    report = models.JSONField()
    made_at = models.DateTimeField()

    class Meta:
        verbose_name = _("assurance result")
        verbose_name_plural = _("assurance results")

    def __str__(self) -> str:
        return f"{day_of(self.period_start)} {'proven' if self.proven else 'differs'}"
