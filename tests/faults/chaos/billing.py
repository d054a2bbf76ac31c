"""The month's end, lived by the worker; then a bill run that is killed while it issues invoices."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date, timedelta
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

from config.retrying import retry_transaction

from .system import Broken, System

RUN_SECONDS = 120


class RunsToKill:
    """Processes that wait for their word, then bill an account a transaction, so that there is a
    middle to be killed in. They are forked while nothing runs yet, which spares their start."""

    def __init__(self, count: int) -> None:
        fork = multiprocessing.get_context("fork")
        self.cycle = fork.Array("c", 16)
        self._waiting = [
            (go, fork.Process(target=_bill_when_told, args=(go, self.cycle), daemon=True))
            for go in (fork.Event() for _number in range(count))
        ]

    def __enter__(self) -> Self:
        for _go, process in self._waiting:
            process.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _go, process in self._waiting:
            process.kill()
            process.join()

    def kill_each(self, cycle: date, *, dice: random.Random) -> list[int]:
        """One after the other is let go and killed once some invoices more stand; returns how many
        stood after each."""
        from accounts.models import Account

        self.cycle.value = f"{cycle:%Y-%m}".encode()  # type: ignore[attr-defined]  # of chars only
        stood: list[int] = []
        for go, process in self._waiting:
            wanted = (stood[-1] if stood else 0) + dice.randrange(1, 4)
            wanted = min(Account.objects.count() - 1, wanted)
            go.set()
            until = time.monotonic() + RUN_SECONDS
            while invoices(cycle) < wanted and process.is_alive() and time.monotonic() < until:
                time.sleep(0.001)
            process.kill()
            process.join()
            stood.append(invoices(cycle))
        return stood


def _bill_when_told(go: Event, cycle: Any) -> None:
    from config import clock
    from invoicing import billrun
    from usage.periods import parse_cycle

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: whoever forked us ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = os.getppid()
    while not go.wait(0.5):
        if os.getppid() != parent:
            return  # whoever forked us was killed
    with patch.object(billrun, "retry_transaction", _slowly):
        billrun.bill_cycle(cycle=parse_cycle(cycle.value.decode()), now=clock.now(), shard=1)


def _slowly(fn: Callable[[], Any]) -> Any:
    """A shard, and a pause: on a busy machine, too, the killer hits the middle of the run."""
    issued = retry_transaction(fn)
    time.sleep(0.03)
    return issued


def turn_the_month(system: System, cycle: date) -> None:
    """Abandoned sessions expire, the next month is granted, this one closes; all by tasks."""
    from django.conf import settings

    from config import clock
    from plans.models import Subscription
    from plans.tasks import renew_subscriptions
    from usage.models import Bucket, QuotaSession
    from usage.periods import cycle_end
    from usage.tasks import close_buckets, expire_sessions, sweep_blocks

    from .world import move_clock_to

    move_clock_to(clock.now() + timedelta(seconds=2 * settings.QUOTA_VALIDITY_SECONDS + 60))
    open_sessions = QuotaSession.objects.filter(state=QuotaSession.State.OPEN)
    _by_task(system, expire_sessions, lambda: not open_sessions.exists())
    end = cycle_end(cycle)
    move_clock_to(end - timedelta(seconds=settings.RENEWAL_LEAD_SECONDS - 5))
    due = Subscription.objects.filter(renews_at__lte=end)
    _by_task(system, renew_subscriptions, lambda: not due.exists())
    move_clock_to(end + timedelta(minutes=61))
    to_close = Bucket.objects.filter(closed_at=None, close_at__lte=end + timedelta(minutes=61))
    _by_task(system, close_buckets, lambda: not to_close.exists())
    sweep_blocks.delay()
    move_clock_to(end + timedelta(minutes=125))


def _by_task(system: System, task: Any, done: Any) -> None:
    """Ask the worker for a task, again and again, until its work is done."""
    asked = 0.0

    def ask_and_look() -> bool:
        nonlocal asked
        if time.monotonic() - asked > 5:
            task.delay()
            asked = time.monotonic()
        return bool(done())

    system.await_that(task.name, ask_and_look)


def bill_twice_at_once(system: System, cycle: date, *, by_tasks: bool) -> None:
    """Two runs at the same time take up what the killed ones left: two tasks for the worker, or
    two commands, which take seconds to start."""
    from django.conf import settings

    from invoicing import billrun
    from invoicing.tasks import issue_invoices

    if by_tasks:
        for _run in range(2):
            issue_invoices.delay(f"{cycle:%Y-%m}")
        system.await_that("the bill run", lambda: billrun.is_done(cycle=cycle))
        return
    command = [sys.executable, "manage.py", "bill_run", f"{cycle:%Y-%m}"]
    with (settings.LAYOUT.log / "billing.log").open("ab") as log:
        runs = [
            subprocess.Popen(command, cwd=settings.BASE_DIR, stdout=log, stderr=log)
            for _run in range(2)
        ]
    try:
        for run in runs:
            if run.wait(RUN_SECONDS):
                raise Broken(f"a bill run ended with status {run.returncode}; see {log.name}")
    finally:
        for run in runs:
            run.kill()
            run.wait()


def invoices(cycle: date) -> int:
    """How many stand."""
    from invoicing.models import Invoice

    return Invoice.objects.filter(cycle=cycle, state=Invoice.State.FINAL).count()
