"""The replay: members join, nodes report, quotas bite, some buy a pack; the clock moves along.

What was done is kept in a small file after every step, so that a demo that was stopped goes on
where it was, and one that has lived its month does not live it twice.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.db import transaction

from accounts import lifecycle
from accounts.keys import issue_key
from accounts.models import ApiKey, Subscriber
from accounts.reports import living_subscriber
from config import clock
from plans.ordering import place_order
from plans.subscribing import sign_up
from usage.nodes import NodeExists, create_node

from .cast import NODES, Member, Turn
from .client import Client, NoAnswer, NodeClient
from .events import event_of
from .expectation import BOOSTER, Month
from .patience import patiently

ACTOR = "demo"
REFUSED_EVERY = 7  # after every seventh batch one that must be refused
KINDS = ("duplicate", "conflict", "rejected")
SPOILT = 10  # events of a batch that conflicts or is rejected


@dataclass
class Progress:
    """Where the replay is, and what its nodes were told so far."""

    cycle: str
    step: int = 0
    keys: dict[str, str] = field(default_factory=dict)
    last_batch: dict[str, int | None] = field(default_factory=dict)
    received: int = 0
    duplicate: int = 0
    conflict: int = 0
    rejected: int = 0
    exhausted: list[str] = field(default_factory=list)
    lived: bool = False

    @classmethod
    def load(cls, path: Path) -> "Progress | None":
        """What an earlier run left, or None."""
        return cls(**json.loads(path.read_text())) if path.exists() else None

    def save(self, path: Path) -> None:
        """Keep it, whole or not at all, for nobody else to read: it holds the nodes' keys."""
        half = path.with_suffix(".half")
        half.touch(mode=0o600)
        half.write_text(json.dumps(asdict(self)))
        half.replace(path)


def move_clock_to(instant: datetime) -> None:
    """Let it be this instant for every process of the demo."""
    clock.set_offset(instant - datetime.now(UTC))


class Replay:
    """One run over the month's batches."""

    def __init__(
        self,
        *,
        base: str,
        month: Month,
        batches: list[list[Turn]],
        progress: Progress,
        file: Path,
        show: Callable[[int, int, float], None],
    ) -> None:
        self.base = base
        self.month = month
        self.batches = batches
        self.progress = progress
        self.file = file
        self.show = show
        self._subjects: dict[str, str] = {}
        self._nodes: list[NodeClient] = []
        self._cursor = 0
        self._blocked: set[str] = set()
        self._seconds = 0.0  # spent on reporting, for the rate that is shown

    def run(self, cast: list[Member], *, now: Callable[[], datetime]) -> None:
        """Live the month up to its last request; steps that an earlier run did are only counted."""
        self._register_nodes(now())
        waiting = sorted(cast, key=lambda member: (member.joins, member.msisdn))
        sent = 0
        for step, turns in enumerate(self.batches):
            fresh = step >= self.progress.step
            while waiting and waiting[0].joins <= turns[-1].request.at:
                self._join(waiting.pop(0), fresh=fresh)
            sent += self._batch(step, turns, fresh=fresh)
            if fresh:
                self.progress.step = step + 1
                self.progress.save(self.file)
                self.show(step + 1, len(self.batches), sent / self._seconds if sent else 0.0)
        for member in waiting:
            self._join(member, fresh=True)

    def _register_nodes(self, now: datetime) -> None:
        for name in NODES:
            if name not in self.progress.keys:
                try:
                    _node, key = create_node(name=name, cluster="wuxi", now=now)
                except NodeExists:
                    raise SystemExit(
                        f"A node {name} exists, but not of this demo: use an empty VAR_DIR."
                    ) from None
                self.progress.keys[name] = key
                self.progress.save(self.file)
            client = NodeClient(self.base, self.progress.keys[name])
            self._nodes.append(client)

    def _join(self, member: Member, *, fresh: bool) -> None:
        self.month.join(member)
        if not fresh:
            return
        move_clock_to(member.joins)
        patiently(lambda: _sign_up(member))

    def _batch(self, step: int, turns: list[Turn], *, fresh: bool) -> int:
        """Report one batch (and, now and then, one to be refused); returns the events sent."""
        served = self.month.served(turns)
        number = step % len(NODES)
        events = [event_of(turn, node=number, subject=turn.member.msisdn) for turn in served]
        sent = 0
        if fresh:
            move_clock_to(turns[-1].request.at + timedelta(seconds=1))
            self._follow_feed(number)
            wrongly = [turn for turn in served if turn.member.msisdn in self._blocked]
            if wrongly:
                raise AssertionError(f"{wrongly[0].member.msisdn} is blocked but has tokens left")
            sent += self._report(number, events, repeats=0)
        for member in self.month.exhausted_now(served):
            if self.month.buys_booster(member) and fresh:
                _buy_booster(self.base, member, now=clock.now())
        if fresh and step % REFUSED_EVERY == REFUSED_EVERY - 1 and events:
            kind = KINDS[step // REFUSED_EVERY % len(KINDS)]
            sent += self._report_refused(number, events, kind, step)
        return sent

    def _follow_feed(self, number: int) -> None:
        """Do as a node does: learn from the feed who is blocked."""
        while True:
            page = self._nodes[number].get(f"/quota/exhausted?cursor={self._cursor}")
            for change in page["changes"]:
                if change["blocked"]:
                    self._blocked.add(change["subject"])
                else:
                    self._blocked.discard(change["subject"])
            if page["cursor"] == self._cursor:
                return
            self._cursor = page["cursor"]

    def _report(self, number: int, events: list[dict[str, Any]], *, repeats: int) -> int:
        """Report a batch and add up what was answered; `repeats` of it were counted before."""
        client = self._nodes[number]
        client.last_batch = self.progress.last_batch.get(NODES[number], client.last_batch)
        began = time.monotonic()
        answer, stored = client.report(events)
        self._seconds += time.monotonic() - began
        self.progress.last_batch[NODES[number]] = client.last_batch
        self.progress.received += len(events)
        for outcome in ("duplicate", "conflict", "rejected"):
            count = answer[outcome]
            setattr(self.progress, outcome, getattr(self.progress, outcome) + count)
        if stored:
            # The lost attempt was stored too: it was received, and its repeats were repeats.
            self.progress.received += len(events)
            self.progress.duplicate += repeats
            self.progress.conflict += answer["conflict"]
            self.progress.rejected += answer["rejected"]
        known = {*self.progress.exhausted, *(gone["subject"] for gone in answer["exhausted"])}
        self.progress.exhausted = sorted(known)
        return len(events)

    def _report_refused(
        self, number: int, events: list[dict[str, Any]], kind: str, step: int
    ) -> int:
        if kind == "duplicate":
            return self._report(number, events, repeats=len(events))
        spoilt = json.loads(json.dumps(events[:SPOILT]))
        for position, event in enumerate(spoilt):
            if kind == "conflict":
                event["data"]["usage"] = {"prompt_tokens": 1, "completion_tokens": 1}
                continue
            event["id"] = f"spoilt-{step:04d}-{position}"
            if position % 2:
                event["subject"] = "+8619999999999"
            else:
                event["data"]["usage"] = {"prompt_tokens": "many"}
        return self._report(number, spoilt, repeats=0)


def _sign_up(member: Member) -> None:
    """A plan, or a number with a pack on the bill; done again it changes nothing."""
    if member.offer.startswith("pack"):
        _sign_up_with_pack(member)
        return
    sign_up(
        msisdn=member.msisdn,
        plan_code=member.offer,
        starts_at=member.joins,
        actor=ACTOR,
        now=member.joins,
    )


@transaction.atomic
def _sign_up_with_pack(member: Member) -> None:
    if Subscriber.objects.filter(msisdn=member.msisdn).exists():
        return
    account = lifecycle.open_account(kind="person", name=member.msisdn, now=member.joins)
    subscriber = lifecycle.create_subscriber(
        account_id=account.pk,
        msisdn=member.msisdn,
        actor=ACTOR,
        reason="signed up",
        now=member.joins,
    )
    lifecycle.activate(
        subscriber_id=subscriber.pk, actor=ACTOR, reason="signed up", now=member.joins
    )
    place_order(
        subscriber_id=subscriber.pk,
        plan_code=member.offer,
        pay="bill",
        key="demo-first-pack",
        now=member.joins,
    )


def _buy_booster(base: str, member: Member, *, now: datetime) -> None:
    """Buy a pack on the bill through the subscriber's own API key."""
    token = patiently(lambda: _own_key(member, now))
    client = Client(base, token)
    order = {"plan": BOOSTER, "pay": "bill"}
    answer = client.post("/me/orders", order, {"Idempotency-Key": "demo-booster"})
    if answer.status_code not in {200, 201}:
        raise NoAnswer(f"The pack for {member.msisdn} was refused: {answer.text}")


def _own_key(member: Member, now: datetime) -> str:
    subscriber = living_subscriber(msisdn=member.msisdn)
    _key, token = issue_key(
        kind=ApiKey.Kind.SUBSCRIBER, subscriber_id=subscriber.pk, name="demo", now=now
    )
    return token
