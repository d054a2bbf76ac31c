"""kill -9 at any instant: what was acknowledged is there, what is sent again counts once."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from accounts.models import Account
from tests.usage.conftest import NOON, counts, event, give, left, make_subscriber, send
from usage import ingest as ingest_module
from usage import proof
from usage.models import Bucket, Node, Overage, UsageBatch, UsageEvent

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parents[2]
KILLS = 4

Batch = list[dict[str, Any]]


@pytest.fixture
def batches(account: Account) -> list[Batch]:
    """Forty batches for six subscribers; a third of each was in the one before."""
    people = [make_subscriber(account, f"+861390000020{number}") for number in range(6)]
    for one in people:
        give(one, 2000)
    dice = random.Random(7)
    events = [
        event(f"e{number}", dice.randint(1, 20), subject=dice.choice(people).msisdn)
        for number in range(40 * 40)
    ]
    return [events[max(0, start - 20) : start + 40] for start in range(0, len(events), 40)]


def collector(node: Node, batches: Sequence[Batch], folder: Path) -> subprocess.Popen[str]:
    """A process of its own that ingests the batches, on this test's database."""
    lines = folder / "batches.ndjson"
    lines.write_text("".join(json.dumps(batch) + "\n" for batch in batches))
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        # tests.settings adds its own folder to it once more.
        "VAR_DIR": str(Path(os.environ["VAR_DIR"]).parent),
    }
    database = str(connection.settings_dict["NAME"])
    command = [sys.executable, "-m", "tests.faults.collector_process", database, str(node.pk)]
    with lines.open() as source:
        return subprocess.Popen(
            [*command, NOON.isoformat()], stdin=source, stdout=subprocess.PIPE, cwd=ROOT,
            env=environment, text=True,
        )  # fmt: skip


def kill_while_it_works(process: subprocess.Popen[str], after: float) -> int:
    """SIGKILL some instant after its first answer; returns how many batches it acknowledged."""
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "0\n"
        time.sleep(after)
        process.kill()
        return 1 + len(process.stdout.read().splitlines())


def test_a_killed_collector_loses_nothing_and_counts_nothing_twice(
    node: Node, batches: list[Batch], tmp_path: Path
) -> None:
    """idem-05, USG-02."""
    dice = random.Random()
    acknowledged_by_run = []
    for _kill in range(KILLS):
        process = collector(node, batches, tmp_path)
        acknowledged = kill_while_it_works(process, dice.uniform(0, 0.15))
        acknowledged_by_run.append(acknowledged)
        known = {one["id"] for batch in batches[:acknowledged] for one in batch}
        stored = set(UsageEvent.objects.values_list("event_id", flat=True))
        assert known <= stored
        assert proof.verify() == []
    assert min(acknowledged_by_run) < len(batches)
    for batch in batches:
        send(node, *batch)
    sent = {one["id"]: one["data"]["usage"]["prompt_tokens"] for batch in batches for one in batch}
    counted = dict(UsageEvent.objects.values_list("event_id", "mt"))
    assert counted == {name: tokens * 1000 for name, tokens in sent.items()}
    assert UsageEvent.objects.count() == len(sent)
    spent = sum(one.granted_mt - one.remaining_mt for one in Bucket.objects.all())
    beyond = sum(row.mt for row in Overage.objects.all())
    assert spent + beyond == sum(counted.values())
    assert proof.verify() == []


def test_a_backend_that_dies_in_the_middle_is_tried_again(node: Node, month: Bucket) -> None:
    """The batch waits for its subscriber's lock when its backend is terminated."""

    def report() -> tuple[int, int, int, int]:
        try:
            return counts(send(node, event("e1", 10), event("e2", 5)))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM usage_chargingprofile FOR NO KEY UPDATE")
            reported = pool.submit(report)
            terminated = 0
            for _look in range(200):
                cursor.execute("SELECT pg_stat_clear_snapshot()")  # it is kept per transaction
                cursor.execute(
                    "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                terminated = cursor.fetchone()[0]
                if terminated:
                    break
                time.sleep(0.02)
        assert terminated == 1
        assert reported.result(timeout=20) == (2, 0, 0, 0)
    assert left(month) == 985_000
    assert UsageBatch.objects.count() == 1
    assert proof.verify() == []


def test_a_commit_whose_answer_was_lost_shows_as_duplicates(
    node: Node, month: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = ingest_module._count
    losses = [OperationalError("the connection was lost after the commit")]

    def loses_its_first_answer(*arguments: Any, **told: Any) -> Any:
        result = honest(*arguments, **told)
        if losses:
            raise losses.pop()
        return result

    monkeypatch.setattr(ingest_module, "_count", loses_its_first_answer)
    assert counts(send(node, event("e1", 10), event("e2", 5))) == (0, 2, 0, 0)
    assert left(month) == 985_000
    assert UsageEvent.objects.count() == 2
    assert proof.verify() == []
