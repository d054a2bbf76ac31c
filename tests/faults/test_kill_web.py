"""kill -9 of web processes while many callers report an event a request, whose transactions they
share: nobody is told what is not so, and what is sent again counts once."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db import connection

from accounts.models import Account
from tests.usage.conftest import NOON, event, give, make_subscriber
from usage import proof
from usage.models import Bucket, Node, Overage, UsageBatch, UsageEvent

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parents[2]
CALLERS, EVENTS, KILLS = 24, 600, 2
PATIENCE_SECONDS = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def web(folder: Path, port: int) -> Iterator[psutil.Process]:
    """Granian with one worker on this test's database at NOON."""
    clock = folder / "clock"
    clock.write_text(str((NOON - datetime.now(UTC)) // timedelta(microseconds=1)))
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        # tests.settings adds its own folder to it once more.
        "VAR_DIR": str(Path(os.environ["VAR_DIR"]).parent),
        "FAULTS_DATABASE": str(connection.settings_dict["NAME"]),
        "FAULTS_CLOCK": str(clock),
    }
    command = [
        *(sys.executable, "-m", "granian", "--interface", "wsgi", "--no-ws"),
        *("--host", "127.0.0.1", "--port", str(port), "--blocking-threads", "32"),
        "tests.faults.web_process:application",
    ]
    log = folder / "web.log"
    with log.open("ab") as output:
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(30)


class Callers:
    """Threads that each report one event after the other until all are acknowledged."""

    def __init__(self, port: int, token: str, events: list[dict[str, Any]]) -> None:
        self.accepted = self.repeated = self.lost = 0
        self._port, self._token = port, token
        self._guard = threading.Lock()
        self._left = list(reversed(events))
        self._until = time.monotonic() + PATIENCE_SECONDS
        self._threads = [threading.Thread(target=self._report) for _ in range(CALLERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=PATIENCE_SECONDS)

    def wait_for(self, acknowledged: int) -> None:
        while self.acknowledged() < acknowledged and time.monotonic() < self._until:
            time.sleep(0.005)

    def acknowledged(self) -> int:
        return self.accepted + self.repeated

    def _report(self) -> None:
        line = HTTPConnection("127.0.0.1", self._port, timeout=30)
        head = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        while one := self._next():
            while time.monotonic() < self._until:
                try:
                    line.request("POST", "/api/v1/usage/events", json.dumps(one), head)
                    response = line.getresponse()
                    answer = json.loads(response.read())
                except (OSError, HTTPException, ValueError):
                    line.close()
                    self._count("lost")
                    time.sleep(0.1)
                    continue
                if response.status == 200:
                    self._count("accepted" if answer["accepted"] else "repeated")
                    break
                assert response.status == 503, answer
        line.close()

    def _next(self) -> dict[str, Any] | None:
        with self._guard:
            return self._left.pop() if self._left else None

    def _count(self, what: str) -> None:
        with self._guard:
            setattr(self, what, getattr(self, what) + 1)


def kill_all(server: psutil.Process) -> None:
    for one in [server, *server.children(recursive=True)]:
        one.kill()


def test_killed_web_processes_lose_nothing_and_count_nothing_twice(
    node_and_token: tuple[Node, str], account: Account, tmp_path: Path
) -> None:
    people = [make_subscriber(account, f"+861390000020{number}") for number in range(6)]
    for one in people:
        give(one, 900)
    dice = random.Random(7)
    events = [
        event(f"e{number}", dice.randint(1, 20), subject=dice.choice(people).msisdn)
        for number in range(EVENTS)
    ]
    port = free_port()
    callers = Callers(port, node_and_token[1], events)
    callers.start()
    for part in range(1, KILLS + 1):
        with web(tmp_path, port) as server:
            callers.wait_for(part * EVENTS // (KILLS + 1))
            kill_all(server)
    with web(tmp_path, port):
        callers.join()
    assert callers.lost >= CALLERS  # until the first answer, and at each kill
    assert callers.acknowledged() == EVENTS, (tmp_path / "web.log").read_text()[-2000:]
    sent = {one["id"]: one["data"]["usage"]["prompt_tokens"] for one in events}
    counted = dict(UsageEvent.objects.values_list("event_id", "mt"))
    assert counted == {name: tokens * 1000 for name, tokens in sent.items()}
    assert UsageEvent.objects.count() == EVENTS
    spent = sum(one.granted_mt - one.remaining_mt for one in Bucket.objects.all())
    assert spent + sum(row.mt for row in Overage.objects.all()) == sum(counted.values())
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(DISTINCT xmin::text) FROM usage_usagebatch")
        assert cursor.fetchone()[0] < UsageBatch.objects.count()  # they did share transactions
    assert proof.verify() == []
