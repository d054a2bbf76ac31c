"""Inference nodes and the weights that turn raw tokens into standard tokens."""

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.fields.ranges import RangeOperators
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from accounts.models import VALIDITY, ApiKey


class Node(models.Model):
    """A machine that serves inference and reports usage; it speaks for its own source only."""

    name = models.CharField(max_length=100, unique=True)
    cluster = models.CharField(max_length=100, blank=True)
    # A source is this node's when it equals one of these or continues it after a slash.
    sources = ArrayField(models.CharField(max_length=200))
    active = models.BooleanField(default=True)
    callback_secret = models.CharField(max_length=100, blank=True)  # signs what it is told
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("node")
        verbose_name_plural = _("nodes")

    def __str__(self) -> str:
        return self.name

    def owns(self, source: str) -> bool:
        """Whether this node may report for a source: one of its own, or below one of them."""
        return any(source == own or source.startswith(f"{own}/") for own in self.sources)


class NodeKey(models.Model):
    """A key of a node; a node may hold two while one is being replaced."""

    node = models.ForeignKey(Node, models.PROTECT, related_name="node_keys")
    api_key = models.OneToOneField(ApiKey, models.PROTECT, related_name="node_key")

    class Meta:
        verbose_name = _("node key")
        verbose_name_plural = _("node keys")

    def __str__(self) -> str:
        return f"{self.node}: {self.api_key}"


class SequenceMark(models.Model):
    """How far a node's numbers of batches were looked at, and the gaps that were open up to there.

    Gap i is [gap_starts[i], gap_ends[i]]; a batch that came later fills it without changing this.
    """

    node = models.OneToOneField(Node, models.CASCADE, primary_key=True, related_name="mark")
    upto = models.BigIntegerField()
    gap_starts = ArrayField(models.BigIntegerField(), default=list)
    gap_ends = ArrayField(models.BigIntegerField(), default=list)

    class Meta:
        verbose_name = _("mark in the numbers of batches")
        verbose_name_plural = _("marks in the numbers of batches")

    def __str__(self) -> str:
        return f"{self.node_id} up to {self.upto}"


class InferenceModel(models.Model):
    """A model as nodes name it; aliases are other spellings that engines report."""

    code = models.CharField(max_length=100, unique=True)
    name = models.CharField(max_length=100)
    aliases = ArrayField(models.CharField(max_length=200), default=list, blank=True)

    class Meta:
        verbose_name = _("model")
        verbose_name_plural = _("models")

    def __str__(self) -> str:
        return self.code


class Weight(models.Model):
    """Standard tokens per raw token of a model, in thousandths, in [valid_from, valid_until).

    A wrong one is withdrawn, never edited: events name it, so it stays as their evidence.
    """

    model = models.ForeignKey(InferenceModel, models.PROTECT, related_name="weights")
    input_milli = models.PositiveIntegerField()
    cached_milli = models.PositiveIntegerField()
    output_milli = models.PositiveIntegerField()
    reasoning_milli = models.PositiveIntegerField()
    valid_from = models.DateTimeField()
    valid_until = models.DateTimeField(null=True, blank=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)
    withdrawn_by = models.CharField(max_length=150, blank=True)
    withdrawn_reason = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name = _("weight")
        verbose_name_plural = _("weights")
        constraints = [
            models.CheckConstraint(
                name="weight_period_not_empty",
                condition=Q(valid_until__isnull=True) | Q(valid_until__gt=F("valid_from")),
            ),
            ExclusionConstraint(
                name="weight_periods_disjoint",
                expressions=[
                    ("model", RangeOperators.EQUAL),
                    (VALIDITY, RangeOperators.OVERLAPS),
                ],
                condition=Q(withdrawn_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model_id} from {self.valid_from:%Y-%m-%d}"
