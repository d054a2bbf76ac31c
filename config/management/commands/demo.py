"""`manage.py demo`: a carrier's month on a real trace, from sign-up to proof, then served."""

import logging
import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from config import clock
from config.demo.cast import MEMBERS, Member, members, script
from config.demo.client import NoAnswer
from config.demo.closing import TooSlow, close_month
from config.demo.expectation import Month
from config.demo.replay import Progress, Replay, move_clock_to
from config.demo.table import printed, reconcile
from config.demo.today import go_on, to_sign_in_as
from config.demo.trace import stretched
from config.local.programs import all_programs
from config.local.servers import local_servers
from config.local.supervisor import GaveUp, Supervisor, on_stop_signals
from usage.periods import cycle_of, cycle_start, parse_cycle, previous_cycle

STAFF_PASSWORD = "tokenpack"  # noqa: S105 (of a demo that listens on this machine only)
STAFF = {
    "admin": "",
    "catalogue": "catalogue manager",
    "support": "support",
    "finance": "finance",
    "auditor": "auditor",
}
SIGN_IN_CODE = "888888"
UP_SECONDS = 90


class Command(BaseCommand):
    help = (
        "Live last month on a real trace: sign up subscribers, replay the trace through the API, "
        "close and bill the month, print the reconciliation, then serve until Ctrl-C."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--exit", action="store_true", help="stop after the table; status 0 if it balances"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.EMBEDDED_POSTGRES:
            raise CommandError(
                "The demo moves the clock, so it runs on the embedded database only: "
                "unset DATABASE_URL."
            )
        self._set_the_scene()
        servers = local_servers()
        with servers:
            self._prepare()
            supervisor = Supervisor(all_programs(logs=settings.VAR_DIR / "log"), servers=servers)
            on_stop_signals(supervisor.request_stop)
            try:
                with supervisor:
                    self._wait_until_up()
                    balanced = self._live(serve=not options["exit"])
                    if not options["exit"]:
                        supervisor.wait()
            except (GaveUp, NoAnswer, TooSlow) as failure:
                raise CommandError(f"{failure} Logs: {settings.VAR_DIR / 'log'}") from failure
        if not balanced:
            sys.exit(1)

    def _set_the_scene(self) -> None:
        """Settings of the demo, for this process and those it starts."""
        settings.CLOCK_FILE = str(settings.VAR_DIR / "clock")
        logging.getLogger().setLevel(logging.WARNING)
        os.environ.update(DEBUG="1", DEMO_CODE=SIGN_IN_CODE, LOG_LEVEL="WARNING")

    def _prepare(self) -> None:
        began = time.monotonic()
        call_command("migrate", interactive=False, verbosity=0, skip_checks=True)
        clock.set_offset(timedelta(0))
        with _silenced(self):
            for command in ("setup_roles", "load_catalogue", "make_partitions"):
                call_command(command)
        _make_staff()
        connections.close_all()
        self._say(f"database ready in {time.monotonic() - began:.0f} s")

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + UP_SECONDS
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{settings.PUBLIC_URL}/readyz", timeout=5).ok:
                    self._say(f"web, worker and beat are up at {settings.PUBLIC_URL}")
                    return
            except requests.RequestException:
                pass  # not listening yet
            time.sleep(0.3)
        raise NoAnswer(f"{settings.PUBLIC_URL}/readyz did not answer in {UP_SECONDS} s.")

    def _live(self, *, serve: bool) -> bool:
        """The month, its table and, to be served, what comes after; whether the table balances."""
        file = settings.VAR_DIR / "demo.json"
        progress = Progress.load(file)
        if progress is None:
            progress = Progress(cycle=f"{previous_cycle(cycle_of(clock.now())):%Y-%m}")
        cycle = parse_cycle(progress.cycle)
        trace = stretched(cycle)
        batches = script(cycle, trace)
        month = Month(cycle)
        self._say(f"{MEMBERS} subscribers, {len(trace):,} real requests, the month {cycle:%Y-%m}")
        if not progress.lived:
            move_clock_to(cycle_start(cycle))
        replay = Replay(
            base=settings.PUBLIC_URL,
            month=month,
            batches=batches,
            progress=progress,
            file=file,
            show=self._show,
        )
        replay.run(members(cycle), now=clock.now)
        if not progress.lived:
            close_month(cycle, self._say)
            progress.lived = True
            progress.save(file)
        else:
            self._say("this month was lived before; nothing was sent again")
        clock.set_offset(timedelta(0))
        lines = reconcile(cycle=cycle, trace=len(trace), expected=month.close(), progress=progress)
        self.stdout.write(f"\n{printed(lines)}\n")
        balanced = all(line.balances for line in lines)
        self.stdout.write(
            "Every line balances: not one token was lost.\n"
            if balanced
            else "Some lines differ; see `manage.py verify_ledger` and `manage.py assurance`.\n"
        )
        if serve:
            go_on(base=settings.PUBLIC_URL, batches=batches, progress=progress, now=clock.now())
            self._say_where(to_sign_in_as(batches, progress.exhausted))
        return balanced

    def _show(self, done: int, of: int, rate: float) -> None:
        """The progress bar: redrawn on a terminal, a line at every tenth elsewhere."""
        bar = ("#" * (done * 30 // of)).ljust(30, ".")
        text = f"replay [{bar}] {done * 100 // of:3d} %  {rate:,.0f} events/s"
        if self.stderr.isatty():
            self.stderr.write(f"\r{text}", ending="\n" if done == of else "")
            self.stderr.flush()
        elif done == of or done * 10 // of > (done - 1) * 10 // of:
            self.stderr.write(text)

    def _say(self, text: str) -> None:
        self.stderr.write(text)

    def _say_where(self, member: Member) -> None:
        self.stdout.write(
            f"""
portal  {settings.PUBLIC_URL}/           number {member.msisdn}, code {SIGN_IN_CODE}
admin   {settings.PUBLIC_URL}/admin/     admin, catalogue, support, finance or auditor; \
password {STAFF_PASSWORD}
API     {settings.PUBLIC_URL}/api/docs/
data    {settings.VAR_DIR}   logs {settings.VAR_DIR / "log"}
Ctrl-C stops everything.
"""
        )
        self.stdout.flush()


def _make_staff() -> None:
    """One user for each role, so that each can be looked at."""
    from django.contrib.auth.models import Group

    users = get_user_model().objects
    for name, role in STAFF.items():
        if users.filter(username=name).exists():
            continue
        if role:
            user = users.create_user(name, password=STAFF_PASSWORD, is_staff=True)
            user.groups.add(Group.objects.get(name=role))
        else:
            users.create_superuser(name, password=STAFF_PASSWORD)


@contextmanager
def _silenced(command: BaseCommand) -> Iterator[None]:
    """The commands that prepare speak to whoever calls them alone; here they need not."""
    with Path(os.devnull).open("w") as nowhere:
        former = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = nowhere, nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = former
