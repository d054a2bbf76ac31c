"""`make chaos`: the real system under load and under SIGKILL, then the proof of exactly-once.

Status 0 only when every line of the proof holds. All of it lives in VAR_DIR/chaos (or --folder),
which is emptied at the start; what is left afterwards is for looking at.
"""

import argparse
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import system
from .system import Broken, System

if TYPE_CHECKING:  # they import models, which must wait for the settings
    from .billing import RunsToKill
    from .driving import Load
    from .killing import Killer

PEOPLE, NODES = 40, 3
SHORT_PEOPLE = 15
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Status 0: proven; 1: a line differs; 2: the system did not come back."""
    asked = _arguments()
    for number in STOP_SIGNALS:
        signal.signal(number, _interrupted)
    var = asked.folder.absolute()
    print(f"chaos: seed {asked.seed}, {var}", flush=True)
    try:
        system.make_empty(var)
        system.choose_settings(var)
        import django

        django.setup()
        # That something had to be started again is no news here.
        logging.getLogger("config.local.supervisor").setLevel(logging.ERROR)
        from config.local.servers import local_servers

        from .billing import RunsToKill

        with RunsToKill(1 if asked.short else 3) as runs, local_servers():
            proven = _live(asked, runs)
    except KeyboardInterrupt:
        print("stopped; nothing is proven")
        return 130
    except Broken as failure:
        print(f"chaos: {failure}")
        return 2
    if proven and asked.discard:
        system.make_empty(var)
    return 0 if proven else 1


def _live(asked: argparse.Namespace, runs: "RunsToKill") -> bool:
    from config.local.supervisor import GaveUp

    from . import billing, proving, table
    from .driving import Caller, Load
    from .journal import Journal
    from .killing import Killer
    from .world import make_carrier

    dice = random.Random(asked.seed)
    people = SHORT_PEOPLE if asked.short else PEOPLE
    with _step("make an empty carrier"):
        carrier = make_carrier(people=people, nodes=NODES, dice=dice)
    journal = Journal()
    with system.running(with_beat=not asked.short) as running:
        try:
            with _step("start web, worker and beat"):
                running.await_ready()
            load = Load(base=running.base, carrier=carrier, journal=journal, seed=asked.seed)
            killer = Killer(running, seed=asked.seed)
            with _step("load, and kill"):
                _torment(running, load, killer, seconds=asked.seconds, short=asked.short)
            lines = proving.events_are_stored_once(journal)
            lines += proving.everything_adds_up(carrier)
            with _step("send everything again"):
                caller = Caller(running.base, carrier.node_keys[0], journal, dice)
                lines += proving.sent_again_nothing_changes(journal, caller)
            with _step("turn the month"):
                billing.turn_the_month(running, carrier.cycle)
            lines += proving.nothing_is_held()
            with _step("bill, and kill"):
                stood = runs.kill_each(carrier.cycle, dice=dice)
                billing.bill_twice_at_once(running, carrier.cycle, by_tasks=asked.short)
            lines += proving.each_account_is_billed_once(carrier, stood)
            lines += proving.at_the_end(journal, carrier)
            lines.append(proving.Line("answers that nobody should get", [], journal.surprises[:5]))
        except GaveUp as failure:
            raise Broken(f"{failure}") from failure
    killer.kills["bill run"] = len(stood)
    proven = all(line.holds for line in lines)
    print(table.printed(killer.kills, journal, lines))
    print(f"\n{'proven: exactly once' if proven else 'NOT PROVEN'} (seed {asked.seed})")
    return proven


def _torment(
    running: System, load: "Load", killer: "Killer", *, seconds: float, short: bool
) -> None:
    """Load all the while; kills at random, or one of each kind; then all come to rest."""
    load.start()
    try:
        if short:
            killer.one_of_each(settle=lambda kind: _go_on_until_served(running, load, kind))
        else:
            killer.start()
            running.supervisor.wait(seconds=seconds)
    finally:
        killer.stop()
        load.leave()
    running.await_ready()
    load.join()


def _go_on_until_served(running: System, load: "Load", kind: str) -> None:
    """Some requests are answered after the kill, so that the next one hits a working system."""
    with _step(f"served again without {kind}"):
        before = load.journal.progress()
        running.await_that("requests are answered", lambda: load.journal.progress() >= before + 3)


@contextmanager
def _step(name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"  {name}: {time.monotonic() - began:.1f} s", flush=True)


def _interrupted(number: int, frame: object) -> None:
    """The first one ends it; stopping all that runs has its own time limits, so no second one
    needs to be harsher."""
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos")
    parser.add_argument("--seconds", type=float, default=60, help="of load and kills")
    parser.add_argument("--seed", type=int, default=None, help="draws the same again")
    parser.add_argument("--short", action="store_true", help="one kill of each kind, no longer")
    parser.add_argument(
        "--folder", type=Path, default=Path(os.environ.get("VAR_DIR", "var"), "chaos")
    )
    parser.add_argument("--discard", action="store_true", help="remove the folder when proven")
    asked = parser.parse_args()
    if asked.seed is None:
        asked.seed = random.randrange(10**6)
    return asked


if __name__ == "__main__":
    sys.exit(main())
