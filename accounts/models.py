"""Who pays and who uses: accounts, subscribers, numbers, users, keys and outgoing messages."""

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, DateTimeRangeField, RangeBoundary
from django.contrib.postgres.fields.ranges import RangeOperators
from django.db import models
from django.db.models import F, Func, Q
from django.utils.translation import gettext_lazy as _

# [valid_from, valid_until): RangeBoundary() is inclusive below and exclusive above.
VALIDITY = Func(
    "valid_from",
    "valid_until",
    RangeBoundary(),
    function="tstzrange",
    output_field=DateTimeRangeField(),
)


class User(AbstractUser):
    """A person who signs in: staff by password, a subscriber by number and one-time code."""

    class Meta:
        verbose_name = _("user")
        verbose_name_plural = _("users")


class Account(models.Model):
    """Who pays: a person or an enterprise."""

    class Kind(models.TextChoices):
        PERSON = "person", _("Person")
        ENTERPRISE = "enterprise", _("Enterprise")

    kind = models.CharField(max_length=10, choices=Kind, default=Kind.PERSON)
    name = models.CharField(max_length=200)
    tax_number = models.CharField(max_length=20, blank=True)
    email = models.EmailField(blank=True)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("account")
        verbose_name_plural = _("accounts")

    def __str__(self) -> str:
        return self.name


class Subscriber(models.Model):
    """Who uses: one number under one account. The number is an attribute with a validity."""

    class State(models.TextChoices):
        CREATED = "created", _("Created")
        ACTIVE = "active", _("Active")
        SUSPENDED = "suspended", _("Suspended")
        TERMINATED = "terminated", _("Terminated")

    account = models.ForeignKey(Account, models.PROTECT, related_name="subscribers")
    user = models.OneToOneField(
        User, models.PROTECT, null=True, blank=True, related_name="subscriber"
    )
    # A copy of the number in force, for display and search; NumberAssignment is the truth.
    msisdn = models.CharField(max_length=16, db_index=True)
    state = models.CharField(max_length=10, choices=State, default=State.CREATED)
    language = models.CharField(max_length=10, default="zh-hans")
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("subscriber")
        verbose_name_plural = _("subscribers")
        constraints = [
            models.CheckConstraint(
                name="subscriber_msisdn_is_e164", condition=Q(msisdn__regex=r"^\+[1-9][0-9]{5,14}$")
            ),
            models.CheckConstraint(
                name="subscriber_state_known",
                condition=Q(state__in=["created", "active", "suspended", "terminated"]),
            ),
            models.UniqueConstraint(
                name="subscriber_msisdn_unique_among_living",
                fields=["msisdn"],
                condition=~Q(state="terminated"),
            ),
        ]

    def __str__(self) -> str:
        return self.msisdn


class NumberAssignment(models.Model):
    """A number belongs to a subscriber during [valid_from, valid_until); null is still held."""

    subscriber = models.ForeignKey(Subscriber, models.PROTECT, related_name="numbers")
    msisdn = models.CharField(max_length=16)
    valid_from = models.DateTimeField()
    valid_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("number assignment")
        verbose_name_plural = _("number assignments")
        # Who held a number is asked for every event: the index alone answers.
        indexes = [
            models.Index(
                fields=["msisdn", "valid_from"], include=["subscriber"], name="number_holders"
            )
        ]
        constraints = [
            models.CheckConstraint(
                name="number_assignment_not_empty",
                condition=Q(valid_until__isnull=True) | Q(valid_until__gt=F("valid_from")),
            ),
            ExclusionConstraint(
                name="number_assignment_one_holder",
                expressions=[
                    ("msisdn", RangeOperators.EQUAL),
                    (VALIDITY, RangeOperators.OVERLAPS),
                ],
            ),
            ExclusionConstraint(
                name="number_assignment_one_number",
                expressions=[
                    ("subscriber", RangeOperators.EQUAL),
                    (VALIDITY, RangeOperators.OVERLAPS),
                ],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.msisdn} from {self.valid_from:%Y-%m-%d}"


class NumberVersion(models.Model):
    """One row, which counts on, by triggers, when it changes who holds or held a number; a
    number's first holder is no change. Without the row nobody remembers who does."""

    id = models.PositiveSmallIntegerField(primary_key=True)
    version = models.BigIntegerField()

    class Meta:
        verbose_name = _("number version")
        verbose_name_plural = _("number versions")
        constraints = [models.CheckConstraint(name="number_version_is_one_row", condition=Q(id=1))]

    def __str__(self) -> str:
        return str(self.version)


class SubscriberTransition(models.Model):
    """One audited step of a subscriber's life: who did it, when and why. Append-only."""

    subscriber = models.ForeignKey(Subscriber, models.PROTECT, related_name="transitions")
    from_state = models.CharField(max_length=10, blank=True)
    to_state = models.CharField(max_length=10)
    actor = models.CharField(max_length=150)
    reason = models.CharField(max_length=500)
    at = models.DateTimeField()

    class Meta:
        verbose_name = _("subscriber transition")
        verbose_name_plural = _("subscriber transitions")
        constraints = [
            models.CheckConstraint(name="subscriber_transition_has_actor", condition=~Q(actor="")),
        ]

    def __str__(self) -> str:
        return f"{self.subscriber_id}: {self.from_state} -> {self.to_state}"


class ApiKey(models.Model):
    """A bearer secret, stored as a hash. Its owner: a subscriber, a user, or (in usage) a node."""

    class Kind(models.TextChoices):
        NODE = "node", _("Node")
        SUBSCRIBER = "subscriber", _("Subscriber")
        STAFF = "staff", _("Staff")

    kind = models.CharField(max_length=10, choices=Kind)
    public_id = models.CharField(max_length=32, unique=True)
    secret_hash = models.CharField(max_length=64)
    name = models.CharField(max_length=100, blank=True)
    subscriber = models.ForeignKey(
        Subscriber, models.PROTECT, null=True, blank=True, related_name="api_keys"
    )
    user = models.ForeignKey(User, models.PROTECT, null=True, blank=True, related_name="api_keys")
    scopes = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        constraints = [
            models.CheckConstraint(
                name="api_key_owner_fits_kind",
                condition=(
                    Q(kind="subscriber", subscriber__isnull=False, user__isnull=True)
                    | Q(kind__in=["node", "staff"], subscriber__isnull=True)
                ),
            ),
        ]

    def __str__(self) -> str:
        return self.public_id


class OutboxMessage(models.Model):
    """A message to a person, written in the transaction that causes it and sent afterwards."""

    class State(models.TextChoices):
        WAITING = "waiting", _("Waiting")
        SENT = "sent", _("Sent")
        FAILED = "failed", _("Failed")

    key = models.CharField(max_length=120, unique=True)
    recipient = models.CharField(max_length=200)
    subscriber = models.ForeignKey(Subscriber, models.PROTECT, null=True, blank=True)
    template = models.CharField(max_length=40)
    body = models.TextField()
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField()
    created_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True)

    class Meta:
        verbose_name = _("outgoing message")
        verbose_name_plural = _("outgoing messages")
        indexes = [
            models.Index(
                fields=["next_attempt_at"], name="outbox_due", condition=Q(state="waiting")
            )
        ]

    def __str__(self) -> str:
        return self.key
