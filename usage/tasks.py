"""Background work of this app: each may run twice, at once or be killed, and finds its work by
looking."""

from celery import shared_task

from config import clock

from . import enforcement, ledger, partitions

ROUNDS = 100  # of a bounded step in one run; what is left waits for the next run


@shared_task
def sweep_blocks() -> None:
    """Beat, every 30 seconds: blocks that time alone has changed."""
    enforcement.sweep(now=clock.now())


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
