"""Eight processes do everything at once to twenty subscribers and two pools, and nothing drifts."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from accounts.models import Account
from tests.faults.stress_processes import Plan, Report
from tests.usage.conftest import END, NOON, START, give, make_subscriber
from usage import pools, proof
from usage.ledger import Grant
from usage.models import UNCAPPED, Amendment, Bucket, ChargingProfile, Node, PoolUsage, UsageEvent

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parents[2]
PEOPLE, PROCESSES, SECONDS, LEAST_ACTIONS = 20, 8, 5.0, 40
CAPS_MT = {0: 20_000, 1: 20_000, 2: 40_000, 3: 90_000}

# Events and how much of them, as amended, nobody or somebody twice has paid for: no row.
PAID_OTHERWISE = """
    WITH behind AS (
        SELECT event.id, event.id AS event_id, event.mt FROM usage_usageevent AS event
         UNION ALL
        SELECT amendment.id, amendment.event_id, amendment.mt FROM usage_amendment AS amendment
    ), paid AS (
        SELECT entry.event_id AS id, -entry.amount_mt AS mt FROM usage_ledgerentry AS entry
         WHERE entry.kind IN ('debit', 'refund')
         UNION ALL
        SELECT overage.event_id, overage.mt FROM usage_overage AS overage
    ), paid_by_id AS (SELECT paid.id, SUM(paid.mt) AS mt FROM paid GROUP BY paid.id)
    SELECT COALESCE(behind.id, paid_by_id.id), behind.mt, paid_by_id.mt
      FROM behind FULL JOIN paid_by_id ON paid_by_id.id = behind.id
     WHERE COALESCE(behind.mt, 0) <> COALESCE(paid_by_id.mt, 0)
     ORDER BY 1
"""

DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@pytest.fixture
def plan(account: Account, node: Node) -> Plan:
    """Twenty people with little left, ten of them in one of two pools, four of those capped."""
    people = [make_subscriber(account, f"+86139000003{number:02}") for number in range(PEOPLE)]
    months = [give(one, 400) for one in people]
    ids = [one.pk for one in people]
    ChargingProfile.objects.filter(subscriber_id__in=ids[15:]).update(
        beyond="payg", payg_fen_per_million=900, payg_cap_mt=300_000
    )
    ChargingProfile.objects.filter(subscriber_id__in=ids[:10]).update(pool_first=True)
    shared = [
        pools.create_pool(account_id=account.pk, name=name, kind="family", now=START)
        for name in ("left", "right")
    ]
    for place, pool in enumerate(shared * 5):
        pools.join(
            pool_id=pool.pk,
            subscriber_id=ids[place],
            actor="clerk",
            now=START,
            cycle_cap_mt=CAPS_MT.get(place, UNCAPPED),
        )
    for pool in shared:
        wanted = Grant(
            pool_id=pool.pk, kind="plan", name="p", name_en="p", amount_mt=60_000,
            key=f"p{pool.pk}", valid_from=START, valid_until=END,
        )  # fmt: skip
        pools.grant_to_pool(wanted=wanted, now=NOON)
    return Plan(
        seed=int(os.environ.get("STRESS_SEED") or random.randrange(10**6)),
        processes=PROCESSES, seconds=SECONDS, least_actions=LEAST_ACTIONS, node_id=node.pk,
        subscribers=ids, pools=[one.pk for one in shared], months=[one.pk for one in months],
        caps_mt=CAPS_MT,
    )  # fmt: skip


def run(plan: Plan) -> list[Report]:
    """Let the processes act; each says what it was told."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        # tests.settings adds its own folder to it once more.
        "VAR_DIR": str(Path(os.environ["VAR_DIR"]).parent),
    }
    database = str(connection.settings_dict["NAME"])
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.stress_processes", database],
        input=json.dumps(asdict(plan)), capture_output=True, text=True, cwd=ROOT, env=environment,
        timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Report(**one) for one in json.loads(done.stdout)]


def rows(statement: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


@pytest.fixture
def deadlocks_before(db: None) -> list[tuple[Any, ...]]:
    """Other tests of this database may have wanted some."""
    return rows(DEADLOCKS)


@pytest.fixture
def reports(plan: Plan, deadlocks_before: list[tuple[Any, ...]]) -> list[Report]:
    """What the processes were told. A failure shows the seed: STRESS_SEED=… draws the same again
    (who is first at a lock is nobody's to repeat)."""
    print(f"STRESS_SEED={plan.seed}")
    told = run(plan)
    print(sum((Counter(one.done) for one in told), Counter()))
    print(sum((Counter(one.refused) for one in told), Counter()))
    return told


def test_eight_processes_at_once_see_no_lock_error_and_leave_no_drift(
    plan: Plan, reports: list[Report], deadlocks_before: list[tuple[Any, ...]]
) -> None:
    """One run, looked at from all sides, since it takes seconds."""
    assert len(reports) == PROCESSES
    assert all(report.done for report in reports)
    assert sum(report.remembered for report in reports) > 0
    errors = [error for report in reports for error in report.errors]
    assert not errors, f"{len(errors)} errors, the first: {errors[0]}"
    assert rows(DEADLOCKS) == deadlocks_before, "locks were taken in two orders"
    assert proof.verify() == []
    totals, differences = proof.period_totals(start=date(2026, 11, 1), end=date(2026, 12, 1))
    assert differences == []
    assert totals["accepted"] == UsageEvent.objects.count()
    every_event_told_of_is_stored_once(plan, reports)
    assert rows(PAID_OTHERWISE) == []
    what_was_answered_holds(reports)
    caps_hold(plan)


def every_event_told_of_is_stored_once(plan: Plan, reports: list[Report]) -> None:
    """Each process's acknowledgements are kept, under one row an identity; nothing else is there,
    since nobody was killed."""
    told = {id for report in reports for id in report.acknowledged}
    stored = list(UsageEvent.objects.values_list("event_id", flat=True))
    assert len(stored) == len(set(stored))
    assert set(stored) == told


def what_was_answered_holds(reports: list[Report]) -> None:
    """Grants, adjustments and corrections that were acknowledged happened, each once; a sequence
    of a session that two processes asked for was answered with the same words."""
    answers: dict[str, str] = {}
    for report in reports:
        for name, answer in report.answers.items():
            assert answers.setdefault(name, answer) == answer
    granted = {key: mt for report in reports for key, mt in report.granted_mt.items()}
    packs = Bucket.objects.filter(key__in=granted)
    assert dict(packs.values_list("key", "granted_mt")) == granted
    adjusted = sum(mt for report in reports for mt in report.adjusted_mt.values())
    assert sum(Bucket.objects.values_list("adjusted_mt", flat=True)) == adjusted
    corrected = {key: id for report in reports for key, id in report.corrected.items()}
    assert set(Amendment.objects.values_list("key", flat=True)) == set(corrected)


def caps_hold(plan: Plan) -> None:
    """No member took more of a pool than its cap, whenever it came and went."""
    for place, cap_mt in plan.caps_mt.items():
        for pool_id in plan.pools:
            used = PoolUsage.objects.filter(pool_id=pool_id, subscriber_id=plan.subscribers[place])
            assert sum(used.values_list("mt", flat=True)) <= cap_mt
