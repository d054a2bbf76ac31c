"""Subscribers, models, buckets, events and a ledger as one would first write them down."""

from typing import ClassVar

from django.db import models


class Subscriber(models.Model):
    """Who uses."""

    objects: ClassVar[models.Manager["Subscriber"]] = models.Manager()
    msisdn = models.CharField(max_length=16, unique=True)

    class Meta:
        app_label = "naive"

    def __str__(self) -> str:
        return self.msisdn


class Model(models.Model):
    """A model with its weights in thousandths."""

    objects: ClassVar[models.Manager["Model"]] = models.Manager()
    code = models.CharField(max_length=100, unique=True)
    input_milli = models.PositiveIntegerField()
    cached_milli = models.PositiveIntegerField()
    output_milli = models.PositiveIntegerField()
    reasoning_milli = models.PositiveIntegerField()

    class Meta:
        app_label = "naive"

    def __str__(self) -> str:
        return self.code


class Bucket(models.Model):
    """An amount that pays in [valid_from, valid_until)."""

    objects: ClassVar[models.Manager["Bucket"]] = models.Manager()
    subscriber = models.ForeignKey(Subscriber, models.PROTECT, related_name="buckets")
    model = models.ForeignKey(Model, models.PROTECT, null=True)
    model_id: int | None
    priority = models.PositiveSmallIntegerField()
    remaining_mt = models.BigIntegerField()
    valid_from = models.DateTimeField()
    valid_until = models.DateTimeField()

    class Meta:
        app_label = "naive"

    def __str__(self) -> str:
        return str(self.pk)


class Event(models.Model):
    """One inference request."""

    objects: ClassVar[models.Manager["Event"]] = models.Manager()
    source = models.CharField(max_length=200)
    event_id = models.CharField(max_length=200)
    subscriber = models.ForeignKey(Subscriber, models.PROTECT)
    model = models.ForeignKey(Model, models.PROTECT)
    model_id: int
    occurred_at = models.DateTimeField()
    input_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    mt = models.BigIntegerField()
    uncovered_mt = models.BigIntegerField(default=0)
    is_new = False  # whether this request made it

    class Meta:
        app_label = "naive"
        constraints = [models.UniqueConstraint(name="naive_once", fields=["source", "event_id"])]
        indexes = [models.Index(fields=["subscriber", "occurred_at"], name="naive_by_time")]

    def __str__(self) -> str:
        return self.event_id


class LedgerEntry(models.Model):
    """One movement of one bucket."""

    objects: ClassVar[models.Manager["LedgerEntry"]] = models.Manager()
    bucket = models.ForeignKey(Bucket, models.PROTECT)
    event = models.ForeignKey(Event, models.PROTECT)
    amount_mt = models.BigIntegerField()
    balance_mt = models.BigIntegerField()

    class Meta:
        app_label = "naive"

    def __str__(self) -> str:
        return f"{self.amount_mt}"
