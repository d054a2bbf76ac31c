"""What enforcement leaves behind: the feed that nodes poll, and notices once per cycle."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class BlockChange(models.Model):
    """A subscriber was blocked or unblocked; `id` is the cursor of the feed. Append-only.

    Writers hold one advisory lock from insert to commit, so ids become visible in order.
    """

    subscriber_id = models.BigIntegerField()
    msisdn = models.CharField(max_length=16)
    blocked = models.BooleanField()
    reason = models.CharField(max_length=20)
    at = models.DateTimeField()

    class Meta:
        verbose_name = _("block change")
        verbose_name_plural = _("block changes")
        indexes = [models.Index(fields=["msisdn", "-id"], name="block_change_newest")]

    def __str__(self) -> str:
        return f"{self.msisdn} {'blocked' if self.blocked else 'open'}"


class Notice(models.Model):
    """A subscriber reached a share of the cycle's tokens; each share is told once per cycle."""

    subscriber_id = models.BigIntegerField()
    cycle = models.DateField()
    percent = models.PositiveSmallIntegerField()
    at = models.DateTimeField()

    class Meta:
        verbose_name = _("notice")
        verbose_name_plural = _("notices")
        constraints = [
            models.UniqueConstraint(
                name="notice_once_per_cycle", fields=["subscriber_id", "cycle", "percent"]
            )
        ]

    def __str__(self) -> str:
        return f"{self.subscriber_id} {self.cycle:%Y-%m} {self.percent} %"
