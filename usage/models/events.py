"""Usage events as nodes reported them, the batches they came in, and what was refused.

UsageEvent lives in day partitions by occurred_at and EventKey outside of them, so identity holds
across days. Both are written by COPY in `usage.ingest`; there are no foreign keys out of them, so
that the catalogue can be moved or sharded without touching the hot tables.
"""

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _


class UsageBatch(models.Model):
    """One request of a node (or one replay) with what became of its events: half of the proof."""

    class Kind(models.TextChoices):
        EVENTS = "events", _("Events")
        REPLAY = "replay", _("Replay")
        QUOTA = "quota", _("Quota session")
        CORRECTION = "correction", _("Correction")

    id = models.BigIntegerField(primary_key=True)  # from usage_batch_id, drawn before the write
    node_id = models.BigIntegerField(db_index=True)
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.EVENTS)
    sequence = models.BigIntegerField(null=True, blank=True)  # the node's own number of the batch
    received_at = models.DateTimeField(db_index=True)
    received = models.PositiveIntegerField()
    accepted = models.PositiveIntegerField()
    duplicate = models.PositiveIntegerField()
    conflict = models.PositiveIntegerField()
    rejected = models.PositiveIntegerField()
    accepted_mt = models.BigIntegerField()
    debited_mt = models.BigIntegerField()
    overage_mt = models.BigIntegerField()
    uncovered_mt = models.BigIntegerField()

    class Meta:
        verbose_name = _("usage batch")
        verbose_name_plural = _("usage batches")
        indexes = [
            models.Index(
                fields=["node_id", "sequence"],
                name="usage_batch_sequence",
                condition=Q(sequence__isnull=False),
            )
        ]
        constraints = [
            models.CheckConstraint(
                name="usage_batch_events_add_up",
                condition=Q(
                    received=F("accepted") + F("duplicate") + F("conflict") + F("rejected")
                ),
            ),
            models.CheckConstraint(
                name="usage_batch_tokens_add_up",
                condition=Q(accepted_mt=F("debited_mt") + F("overage_mt") + F("uncovered_mt")),
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class UsageTally(models.Model):
    """The counts of one batch split by day of use, so that any period can be proven.

    `day` is the billing-zone day of the event's time, or of its arrival when it has none to read.
    """

    batch_id = models.BigIntegerField()
    day = models.DateField()
    received = models.PositiveIntegerField()
    accepted = models.PositiveIntegerField()
    duplicate = models.PositiveIntegerField()
    conflict = models.PositiveIntegerField()
    rejected = models.PositiveIntegerField()
    accepted_mt = models.BigIntegerField()
    debited_mt = models.BigIntegerField()
    overage_mt = models.BigIntegerField()
    uncovered_mt = models.BigIntegerField()

    class Meta:
        verbose_name = _("usage tally")
        verbose_name_plural = _("usage tallies")
        constraints = [
            models.UniqueConstraint(name="usage_tally_once", fields=["day", "batch_id"]),
            models.CheckConstraint(
                name="usage_tally_events_add_up",
                condition=Q(
                    received=F("accepted") + F("duplicate") + F("conflict") + F("rejected")
                ),
            ),
            models.CheckConstraint(
                name="usage_tally_tokens_add_up",
                condition=Q(accepted_mt=F("debited_mt") + F("overage_mt") + F("uncovered_mt")),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.batch_id} {self.day}"


class UsageEvent(models.Model):
    """One inference request. The four token counts are disjoint: nothing is counted twice.

    `id` is batch id x 16,384 + position in the batch, so it names both. Immutable.
    """

    id = models.BigIntegerField(primary_key=True)
    batch_id = models.BigIntegerField()
    node_id = models.BigIntegerField()
    source = models.TextField()
    event_id = models.TextField()
    subscriber_id = models.BigIntegerField()
    api_key_id = models.BigIntegerField(null=True)
    model_id = models.BigIntegerField()
    weight_id = models.BigIntegerField()
    occurred_at = models.DateTimeField()
    input_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    mt = models.BigIntegerField()
    late = models.BooleanField()

    class Meta:
        verbose_name = _("usage event")
        verbose_name_plural = _("usage events")

    def __str__(self) -> str:
        return f"{self.source}/{self.event_id}"


class EventKey(models.Model):
    """The identity (source, id) of an accepted event, kept 70 days after its arrival."""

    key = models.BinaryField(primary_key=True)
    content = (
        models.BinaryField()
    )  # hash of subject, model and counts: tells a repeat from a conflict
    day = models.DateField()  # of arrival; a BRIN index finds what may be purged

    class Meta:
        verbose_name = _("event key")
        verbose_name_plural = _("event keys")

    def __str__(self) -> str:
        return bytes(self.key).hex()


class QuarantinedEvent(models.Model):
    """An event that was refused or conflicts with a counted one: evidence, and a second chance."""

    class State(models.TextChoices):
        OPEN = "open", _("Open")
        REPLAYED = "replayed", _("Replayed")
        DISMISSED = "dismissed", _("Dismissed")

    batch_id = models.BigIntegerField(db_index=True)
    position = models.PositiveIntegerField()
    node_id = models.BigIntegerField()
    source = models.TextField(blank=True)
    event_id = models.TextField(blank=True)
    code = models.CharField(max_length=30)
    detail = models.TextField()
    body = models.TextField()  # as it arrived
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    received_at = models.DateTimeField()
    settled_at = models.DateTimeField(null=True, blank=True)
    settled_by = models.CharField(max_length=150, blank=True)
    replay_batch_id = models.BigIntegerField(null=True, blank=True)

    class Meta:
        verbose_name = _("quarantined event")
        verbose_name_plural = _("quarantined events")
        indexes = [
            models.Index(fields=["-received_at", "-id"], name="quarantine_recent"),
            models.Index(
                fields=["code", "-id"], name="quarantine_open_code", condition=Q(state="open")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.code}: {self.source}/{self.event_id}"


class DroppedDay(models.Model):
    """What a day partition held when retention dropped it, so that totals stay provable."""

    day = models.DateField(primary_key=True)
    events = models.BigIntegerField()
    mt = models.BigIntegerField()
    debited_mt = models.BigIntegerField()  # what buckets had paid of it; the ledger keeps the rows
    dropped_at = models.DateTimeField()

    class Meta:
        verbose_name = _("dropped day")
        verbose_name_plural = _("dropped days")

    def __str__(self) -> str:
        return str(self.day)
