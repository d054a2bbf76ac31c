"""Background work of this app: each may run twice, at once or be killed, and finds its work by
looking."""

from celery import shared_task

from config import clock

from . import (
    callbacks,
    counters,
    enforcement,
    ledger,
    limit_usage,
    partitions,
    rerating,
    sequences,
    supervising,
)
from .models import Node

ROUNDS = 100  # of a bounded step in one run; what is left waits for the next run
SWEPT = 2000  # subscribers looked at again in one step


@shared_task
def sweep_blocks() -> None:
    """Beat, every 30 seconds: blocks that time alone has changed, many when a month begins."""
    for _round in range(ROUNDS):
        if enforcement.sweep(now=clock.now(), limit=SWEPT) < SWEPT:
            break


@shared_task
def close_buckets() -> None:
    """Beat, every minute: the month's (and any) buckets whose grace time is over."""
    now = clock.now()
    for _round in range(ROUNDS):
        if not ledger.close_due_buckets(now=now):
            break


@shared_task
def care_for_partitions() -> None:
    """Beat, hourly: partitions ahead, old days dropped, old keys forgotten."""
    now = clock.now()
    partitions.make_ahead(now=now)
    partitions.drop_old_days(now=now)
    partitions.purge_keys(now=now)


@shared_task
def expire_sessions() -> None:
    """Beat, every 10 seconds: quota sessions that were left alone for twice their validity."""
    now = clock.now()
    for _round in range(ROUNDS):
        if not supervising.expire_abandoned(now=now):
            break


@shared_task
def forget_quota_answers() -> None:
    """Beat, hourly: answers of quota sessions that no node will ask for again."""
    now = clock.now()
    for _round in range(ROUNDS):
        if not supervising.forget_old(now=now):
            break


@shared_task
def deliver_callbacks() -> None:
    """Beat, every five seconds: what nodes are told. The table is the queue, none is lost."""
    callbacks.deliver_due(now=clock.now())


@shared_task
def purge_watching() -> None:
    """Beat, hourly: settled callbacks, counters and sums that are older than they are kept."""
    now = clock.now()
    for purge in (callbacks.purge, counters.purge, limit_usage.purge):
        for _round in range(ROUNDS):
            if not purge(now=now):
                break


@shared_task
def look_at_sequences() -> None:
    """Beat, hourly: the numbers of batches that came since, so that nobody has to read them all."""
    for node_id in Node.objects.order_by("id").values_list("id", flat=True):
        sequences.look_at(node_id=node_id)


@shared_task
def apply_rerating(rerating_id: int) -> None:
    """Rate a period again; a run that is killed is taken up by the next `continue_reratings`."""
    rerating.apply(rerating_id=rerating_id, clock=clock.now)


@shared_task
def continue_reratings() -> None:
    """Beat, every minute: reratings whose worker fell silent, or never came."""
    for rerating_id in rerating.waiting(now=clock.now()):
        apply_rerating.delay(rerating_id)
