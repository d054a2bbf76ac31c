"""What nodes say of themselves and what they are told: running totals, and callbacks."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class NodeCounter(models.Model):
    """A node's own running totals of a model at an instant, and what came on since the last one."""

    node_id = models.BigIntegerField()
    model = models.CharField(max_length=200, blank=True)  # empty: the node does not tell
    at = models.DateTimeField()
    received_at = models.DateTimeField()
    input_total = models.BigIntegerField()  # cached tokens included
    output_total = models.BigIntegerField()
    requests_total = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    requests = models.BigIntegerField()
    reset = models.BooleanField(default=False)  # the node had started anew since the last one
    # By how many tokens the totals of this sample may be off, and those that came on were since.
    rounding = models.BigIntegerField(default=0, db_default=0)
    rounding_since = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        verbose_name = _("node counter")
        verbose_name_plural = _("node counters")
        constraints = [
            models.UniqueConstraint(name="node_counter_once", fields=["node_id", "model", "at"])
        ]

    def __str__(self) -> str:
        return f"{self.node_id} {self.model} {self.at:%Y-%m-%d %H:%M}"


class Callback(models.Model):
    """A message to a node, written in the transaction that causes it and sent afterwards."""

    class Kind(models.TextChoices):
        REAUTHORIZE = "REAUTHORIZE", _("Ask again")
        ABORT = "ABORT", _("Stop serving")

    class State(models.TextChoices):
        WAITING = "waiting", _("Waiting")
        SENT = "sent", _("Sent")
        FAILED = "failed", _("Failed")

    key = models.CharField(max_length=120, unique=True)
    node_id = models.BigIntegerField()
    session_id = models.BigIntegerField(db_index=True)
    kind = models.CharField(max_length=12, choices=Kind)
    url = models.CharField(max_length=500)
    body = models.JSONField()
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField()
    created_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True)

    class Meta:
        verbose_name = _("callback")
        verbose_name_plural = _("callbacks")
        indexes = [
            models.Index(
                fields=["next_attempt_at"], name="callback_due", condition=Q(state="waiting")
            )
        ]

    def __str__(self) -> str:
        return self.key
