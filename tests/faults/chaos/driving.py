"""The load: nodes that report batches and single events, hold sessions, people who buy packs.

Whoever gets no answer, or a 5xx, sends the very same again until it is answered; a few give up, so
that there are events of which nobody knows whether they were stored.
"""

import json
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import requests

from config import clock
from usage.ingest import LARGE_EVENTS

from .journal import MT_PER_TOKEN, Journal, SentEvent, Told
from .world import SOURCE, Carrier

BATCH = "application/cloudevents-batch+json"
SINGLE = "application/cloudevents+json"
JSON = "application/json"
EVENTS = "/usage/events"
TIMEOUT_SECONDS = 8
PATIENCE_SECONDS = 90  # for one request, resent all the while


class Unanswered(Exception):
    """No answer came, and the caller gave up."""


class Caller:
    """One client with its key, who sends again whatever was not answered."""

    def __init__(self, base: str, key: str, journal: Journal, dice: random.Random) -> None:
        self.base, self.journal, self.dice = f"{base}/api/v1", journal, dice
        self.http = requests.Session()
        self.authorization = self.http.headers["Authorization"] = f"Bearer {key}"

    def post(
        self, path: str, body: Any, headers: dict[str, str], *, gives_up: float = 0.0
    ) -> requests.Response:
        """Send until it is answered; Unanswered when that takes too long, or when the caller gives
        up after a doubt, as it does with this probability."""
        until = time.monotonic() + PATIENCE_SECONDS
        data = json.dumps(body).encode()
        self.journal.count("requests")
        tries = 0
        while True:
            response = self._attempt(path, data, headers)
            tries += 1
            if response is not None:
                self.journal.count("answered")
                if tries > 1 and path == EVENTS and not response.json().get("accepted"):
                    self.journal.count("stored unanswered")
                return response
            if time.monotonic() > until or self.dice.random() < gives_up:
                self.journal.count("given up")
                raise Unanswered(path)
            time.sleep(self.dice.uniform(0.05, 0.4))
            self.journal.count("resends")

    def _attempt(self, path: str, data: bytes, headers: dict[str, str]) -> requests.Response | None:
        try:
            response = self.http.post(
                self.base + path, data=data, headers=headers, timeout=TIMEOUT_SECONDS
            )
        except requests.Timeout:
            self.journal.note_error("timeout")
            return None
        except requests.RequestException as error:
            self.journal.note_error(f"connection: {type(error).__name__}")
            return None
        if response.status_code >= 500:
            self.journal.note_error(f"HTTP {response.status_code}")
            if response.status_code != 503:
                self.journal.note_surprise(response, path)
            return None
        return response


class Load:
    """Threads that go on until they are told to stop; all they send is drawn from the seed."""

    def __init__(self, *, base: str, carrier: Carrier, journal: Journal, seed: int) -> None:
        self.base, self.carrier, self.journal, self.seed = base, carrier, journal, seed
        self._leave = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(act, name), name=name, daemon=True)
            for name, act in self._roles().items()
        ]

    def _roles(self) -> dict[str, Callable[["Node"], None]]:
        reporters: dict[str, Callable[[Node], None]]
        reporters = {f"batches-{number}": Node.report_batch for number in range(2)}
        singles = {f"singles-{number}": Node.report_one for number in range(2)}
        holders = {f"sessions-{number}": Node.hold_a_session for number in range(2)}
        return reporters | singles | holders | {"orders": Node.buy_a_pack}

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        """Let each finish what it has begun, and begin nothing more."""
        self._leave.set()

    def join(self) -> None:
        """Wait until all have left: that is bounded by their patience."""
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS + TIMEOUT_SECONDS)

    def _run(self, act: Callable[["Node"], None], name: str) -> None:
        dice = random.Random(f"{self.seed} {name}")
        node = Node(self, name, dice)
        while not self._leave.is_set():
            try:
                act(node)
            except Unanswered:
                pass  # noted where it happened
            except Exception as error:  # a driver must not die unseen
                self.journal.surprises.append(f"{name}: {type(error).__name__}: {error}")
                return
            self._leave.wait(dice.uniform(0.0, 0.05))


class Node:
    """One thread's client and what it does in a turn."""

    def __init__(self, load: Load, name: str, dice: random.Random) -> None:
        self.carrier, self.journal, self.name, self.dice = load.carrier, load.journal, name, dice
        self.base = load.base
        self.caller = Caller(load.base, dice.choice(load.carrier.node_keys), self.journal, dice)
        self.number = 0
        self.recent: list[SentEvent] = []

    def report_batch(self) -> None:
        """New events, among them some that went before, by this node or by another. Some batches
        are as large as those that set aside who is locked."""
        few = self.dice.randrange(10, 40)
        count = few if self.dice.randrange(8) else LARGE_EVENTS + few
        events = [self._event() for _number in range(count)]
        events += self.dice.sample(self.recent, min(len(self.recent), self.dice.randrange(8)))
        self.recent = events[-60:]
        self.dice.shuffle(events)
        self._report(events, [one.body for one in events], BATCH, gives_up=0.1)

    def report_one(self) -> None:
        event = self._event()
        self._report([event], event.body, SINGLE, gives_up=0.05)

    def _report(self, events: list[SentEvent], body: Any, kind: str, *, gives_up: float) -> None:
        self.journal.note_sent(events)
        response = self.caller.post(EVENTS, body, {"Content-Type": kind}, gives_up=gives_up)
        if response.status_code == 200:
            self.journal.note_acknowledged(events, response.json())
        else:
            self.journal.note_surprise(response, EVENTS)

    def hold_a_session(self) -> None:
        """Create, update a few times with what was used, and release unless it is forgotten."""
        self.number += 1
        name = f"{self.name}-{self.number}"
        subject, model = self.dice.choice(self.carrier.msisdns), self._model()
        create = {"session": name, "sequence": 0, "subject": subject, "model": model}
        create["requested"] = self.dice.randrange(1000, 400_000)
        ref = self._ask(f"{name} 0", "/quota/sessions", create, [])["ref"]
        steps = self.dice.randrange(1, 4)
        for sequence in range(1, steps + 1):
            events = [self._event(subject, model) for _one in range(self.dice.randrange(4))]
            body = {"sequence": sequence, "events": [one.body for one in events]}
            ends = sequence == steps and self.dice.random() < 0.8
            body |= {} if ends else {"requested": self.dice.randrange(1000, 400_000)}
            verb = "release" if ends else "update"
            self._ask(f"{name} {sequence}", f"/quota/sessions/{ref}/{verb}", body, events)

    def _ask(
        self, key: str, path: str, body: dict[str, Any], events: list[SentEvent]
    ) -> dict[str, Any]:
        self.journal.note_sent(events)
        headers = {"Content-Type": JSON, "Authorization": self.caller.authorization}
        response = self.caller.post(path, body, headers)
        if response.status_code not in {200, 201}:
            self.journal.note_surprise(response, path)
            raise Unanswered(path)
        answer: dict[str, Any] = response.json()
        if events:
            self.journal.note_acknowledged(events, answer)
        self.journal.note_told(Told(key, path, body, headers, response.status_code, answer))
        return answer

    def buy_a_pack(self) -> None:
        """A booster on the bill, under a key that makes it one order however often it is sent."""
        self.number += 1
        key = f"{self.name}-{self.number}"
        caller = Caller(
            self.base, self.dice.choice(self.carrier.subscriber_keys), self.journal, self.dice
        )
        headers = {"Content-Type": JSON, "Idempotency-Key": key}
        headers["Authorization"] = caller.authorization
        body = {"plan": "pack-250k", "pay": "bill"}
        response = caller.post("/me/orders", body, headers)
        if response.status_code not in {200, 201}:
            self.journal.note_surprise(response, "/me/orders")
            return
        told = Told(key, "/me/orders", body, headers, response.status_code, response.json())
        self.journal.note_told(told)
        time.sleep(self.dice.uniform(0.1, 0.6))

    def _event(self, subject: str = "", model: str = "") -> SentEvent:
        self.number += 1
        id = f"{self.name}-{self.number}"
        model = model or self._model()
        tokens = self.dice.randrange(1, 60_000)
        at = clock.now() - timedelta(minutes=self.dice.randrange(1, 300))
        body = {
            "specversion": "1.0",
            "id": id,
            "source": SOURCE,
            "type": "inference.completed",
            "subject": subject or self.dice.choice(self.carrier.msisdns),
            "time": at.isoformat(),
            "data": {"model": model, "usage": {"prompt_tokens": tokens}},
        }
        return SentEvent(id, tokens * MT_PER_TOKEN[model], body)

    def _model(self) -> str:
        return self.dice.choice(list(MT_PER_TOKEN))
