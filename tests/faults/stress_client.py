"""One process of the stress test: a seeded source of everything that clients may do at once."""

import json
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from typing import Any

from config.errors import DomainError
from tests.faults.stress_processes import Plan, Report
from tests.usage.conftest import END, HOUR, NOON, START, event
from tests.usage.memories import remembered_rightly
from usage import corrections, enforcement, ledger, movements, pools, quota, supervising
from usage import ingest as ingest_module
from usage.arriving import Delivery
from usage.batches import BatchResult
from usage.ingest import count_all, ingest_together, portion_of
from usage.ledger import Grant
from usage.models import Node, UsageEvent
from usage.models.pools import UNCAPPED
from usage.normalising import Counts
from usage.quota import Ask
from usage.remembering import Memory

WALKED_AT_ONCE = 4  # sessions of a process
LARGE_EVENTS = 20  # to half of the processes: they set aside who is locked
STROKE_SECONDS = 1.0  # how often all come together
GATHERING_SECONDS = 0.2  # for those who are late


class Client:
    """One process: a seeded source of actions, each of which any client may do at any time."""

    def __init__(self, plan: Plan, index: int) -> None:
        self.plan, self.index = plan, index
        self.dice = random.Random(plan.seed * 100 + index)
        self.report = Report(index)
        self.node = Node.objects.get(pk=plan.node_id)
        self.began = time.monotonic()
        self.turn = 0
        self.last: list[str] = []
        self.steps: Counter[str] = Counter()  # how far this process is with a session
        self.refs: dict[str, str] = {}
        self.first_name = 0
        self.stroke = int(self.began / STROKE_SECONDS)
        # Of twenty subscribers, so that some are forgotten; some processes remember nobody.
        self.memory = Memory(most=12) if index % 4 else None

    def run(self) -> Report:
        """Act until the time or the number of actions is over; no error ends it."""
        if self.index % 2:
            ingest_module.LARGE_EVENTS = LARGE_EVENTS
        actions = self.actions()
        while self._goes_on(time.monotonic() - self.began):
            self.turn += 1
            [action] = self.dice.choices(list(actions), list(actions.values()))
            if int(time.monotonic() / STROKE_SECONDS) > self.stroke:
                action = self.act_at_the_stroke
            try:
                action()
                self.report.done[action.__name__] += 1
            except DomainError as refusal:
                self.report.refused[f"{action.__name__}: {refusal.code}"] += 1
            except Exception:  # whatever it is, the test shows it
                self.report.errors.append(f"{action.__name__}\n{traceback.format_exc()}")
        return self.report

    def _goes_on(self, seconds: float) -> bool:
        """On a slow machine there is more time, until enough has happened."""
        few = self.turn < self.plan.least_actions
        return seconds < (2.5 * self.plan.seconds if few else self.plan.seconds)

    def actions(self) -> dict[Callable[[], object], int]:
        """What may be done, and how often."""
        return {
            self.ingest: 30,
            self.send_again: 8,
            self.send_together: 8,
            self.go_on_with_a_session: 24,
            self.debit_at_once: 5,
            self.top_up: 7,
            self.top_up_the_pool: 3,
            self.adjust: 4,
            self.transfer: 4,
            self.amend: 4,
            self.void: 3,
            self.come_or_go: 5,
            self.do_what_beat_does: 6,
        }

    # --- usage ----------------------------------------------------------------------------------

    def ingest(self) -> None:
        """Thirty events of a window that moves on; the other processes send most of them too."""
        # By the clock, so that all are at the front at the same time and claim the same keys.
        start = int((time.monotonic() - self.began) * 150) + self.dice.randrange(20)
        self.last = [f"h{number}" for number in range(start, start + 30)]
        self.dice.shuffle(self.last)
        self._send(self.last)

    def act_at_the_stroke(self) -> None:
        """All come at the same instant: for the same new events, each in its own order, or for
        members of both pools, which hold less than they want."""
        self.stroke = int(time.monotonic() / STROKE_SECONDS)
        wait = self.stroke * STROKE_SECONDS + GATHERING_SECONDS - time.monotonic()
        if self.stroke % 2:
            if not self.index:
                self._grant_to_pool(self.plan.pools[0], 45_000, f"stroke{self.stroke}")
                self._grant_to_pool(self.plan.pools[1], 45_000, f"struck{self.stroke}")
            time.sleep(max(0, wait))
            first = self.index % 5 * 2  # of two members, one of each pool
            ids = [f"m{self.stroke}-{self.index}-{number}" for number in range(2)]
            events = [self._raw(id, first + number) for number, id in enumerate(ids)]
            self._count(events)
            self.report.acknowledged += ids
        else:
            ids = [f"s{self.stroke}-{number}" for number in range(80)]
            self.dice.shuffle(ids)
            time.sleep(max(0, wait))
            self._send(ids)

    def _raw(self, id: str, place: int | None = None) -> bytes:
        """The event of this id: the same to the byte, whoever reports it. It is used by one who is
        drawn, or by the one of that place."""
        dice = random.Random(f"{self.plan.seed} {id}")
        at = NOON - timedelta(minutes=dice.randrange(600))
        subject = str(self._person(dice) if place is None else self.plan.subscribers[place])
        return json.dumps(event(id, dice.randrange(1, 40), subject=subject, at=at)).encode()

    def send_again(self) -> None:
        self._send(self.last)

    def send_together(self) -> None:
        """Single events and parts of the former batch, several deliveries in one transaction."""
        parts = [[f"single{self.turn // 2}-{number}"] for number in range(4)]
        parts += [self.last[:5], self.last[3:9]]
        deliveries = [Delivery(self.node, [self._raw(one) for one in ids]) for ids in parts if ids]
        results = ingest_together(deliveries, now=NOON)
        assert not any(result.refusals for result in results), results
        self.report.acknowledged += [id for ids in parts for id in ids]

    def _send(self, ids: list[str]) -> None:
        result = self._count([self._raw(one) for one in ids])
        assert not result.refusals, result.refusals
        assert result.tally.accepted + result.tally.duplicate == len(ids)
        self.report.acknowledged += ids

    def _count(self, events: list[bytes]) -> BatchResult:
        """Count a report as a web process does that remembers buckets, and look at what it
        remembers."""
        portion = portion_of(Delivery(self.node, events), now=NOON)
        [counted] = count_all([portion], now=NOON, memory=self.memory)
        if self.memory is not None:
            self.report.remembered += remembered_rightly(self.memory)
        return counted.counted()

    # --- sessions -------------------------------------------------------------------------------

    def go_on_with_a_session(self) -> None:
        """The next step of one of a few sessions; two processes walk through each of them."""
        name = f"{self.index // 2}-{self.first_name + self.dice.randrange(WALKED_AT_ONCE)}"
        sequence = self.steps[name]
        dice = random.Random(f"{self.plan.seed} {name} {sequence}")
        ids = [f"q{name}-{sequence}-{number}" for number in range(dice.randrange(4))]
        ask = self._ask(sequence, ids, requested=dice.randrange(1, 80))
        if not sequence:
            answer = quota.create(
                node=self.node, name=name, subject=str(self._person(dice)), model="plain", ask=ask,
                notify_url="https://node.example/notify", now=NOON,
            )  # fmt: skip
            self.refs[name] = answer.body["ref"]
        elif sequence < 4:
            answer = quota.update(node=self.node, ref=self.refs[name], ask=ask, now=NOON)
        else:
            answer = quota.release(node=self.node, ref=self.refs[name], ask=ask, now=NOON)
            self.first_name += 1  # one of them may stay open
        assert not answer.body.get("errors"), answer.body
        self.report.answers[f"{name} {sequence}"] = json.dumps(answer.body, sort_keys=True)
        self.report.acknowledged += ids
        self.steps[name] = min(sequence + 1, 4)  # the end is asked for again, and told again

    def debit_at_once(self) -> None:
        name = f"once{self.turn // 3}"  # any process may have had it
        ids = [f"o{name}-{number}" for number in range(2)]
        answer = quota.create(
            node=self.node, name=name, subject=str(self.plan.subscribers[0]), model="plain",
            ask=self._ask(0, ids, requested=0), one_shot=True, now=NOON,
        )  # fmt: skip
        self.report.answers[f"{name} 0"] = json.dumps(answer.body, sort_keys=True)
        self.report.acknowledged += ids

    def _ask(self, sequence: int, ids: list[str], *, requested: int) -> Any:
        digest = sha256(json.dumps([sequence, ids, requested]).encode()).digest()
        return Ask(sequence, digest, requested, [self._raw(one) for one in ids])

    # --- tokens ---------------------------------------------------------------------------------

    def top_up(self) -> None:
        """A pack, under a key that the other processes use as well."""
        key = f"pack{self.turn // 2}"
        dice = random.Random(f"{self.plan.seed} {key}")
        amount_mt = dice.randrange(1, 200) * 1000
        ends = dice.choice([END, END, NOON])  # what ended at noon is closed by whoever comes by
        ledger.grant(
            subscriber_id=self._person(dice), kind="pack", name="包", name_en="pack",
            amount_mt=amount_mt, valid_from=START, valid_until=ends, key=key,
            now=NOON,
        )  # fmt: skip
        self.report.granted_mt[key] = amount_mt

    def top_up_the_pool(self) -> None:
        key = f"shared{self.turn // 2}"
        dice = random.Random(f"{self.plan.seed} {key}")
        self._grant_to_pool(dice.choice(self.plan.pools), dice.randrange(1, 60) * 1000, key)

    def _grant_to_pool(self, pool_id: int, amount_mt: int, key: str) -> None:
        wanted = Grant(
            pool_id=pool_id, kind="plan", name="包", name_en="plan", amount_mt=amount_mt,
            valid_from=START, valid_until=END, key=key,
        )  # fmt: skip
        pools.grant_to_pool(wanted=wanted, now=NOON)
        self.report.granted_mt[key] = amount_mt

    def adjust(self) -> None:
        key = f"adjusted{self.index}-{self.turn}"
        amount_mt = self.dice.choice([-9000, 5000, 20_000])
        bucket = self.dice.choice(self.plan.months)
        movements.adjust(
            bucket_id=bucket, amount_mt=amount_mt, key=key, actor="c", reason="r", now=NOON
        )
        self.report.adjusted_mt[key] = amount_mt

    def transfer(self) -> None:
        movements.transfer(
            bucket_id=self.dice.choice(self.plan.months), to_subscriber_id=self._person(self.dice),
            amount_mt=self.dice.randrange(1, 30) * 1000, key=f"moved{self.index}-{self.turn}",
            actor="c", reason="r", now=NOON,
        )  # fmt: skip

    # --- second thoughts ------------------------------------------------------------------------

    def amend(self) -> None:
        key, id = f"amended{self.index}-{self.turn}", self._known()
        corrections.amend(
            event_id=self._number(id), counts=Counts(self.dice.randrange(60), 0, 0, 0), key=key,
            actor="c", reason="r", now=NOON,
        )  # fmt: skip
        self.report.corrected[key] = id

    def void(self) -> None:
        key, id = f"void{self.index}-{self.turn}", self._known()
        corrections.void(event_id=self._number(id), key=key, actor="c", reason="r", now=NOON)
        self.report.corrected[key] = id

    def _known(self) -> str:
        if not self.report.acknowledged:
            self.ingest()
        return self.dice.choice(self.report.acknowledged[-200:])

    def _number(self, id: str) -> int:
        return UsageEvent.objects.get(event_id=id).pk

    # --- people and time ------------------------------------------------------------------------

    def come_or_go(self) -> None:
        """A member leaves, or joins one of the pools again under the same cap."""
        place = self.dice.randrange(len(self.plan.subscribers) // 2)
        who = {"subscriber_id": self.plan.subscribers[place], "actor": "clerk", "now": NOON}
        pool = self.dice.choice(self.plan.pools)
        if self.dice.random() < 0.3:
            pools.leave(pool_id=pool, **who)  # type: ignore[arg-type]
        else:
            cap_mt = self.plan.caps_mt.get(place, UNCAPPED)
            pools.join(pool_id=pool, cycle_cap_mt=cap_mt, **who)  # type: ignore[arg-type]

    def do_what_beat_does(self) -> None:
        """Abandoned holds go back, buckets of the past close, blocks are swept."""
        act: Any = self.dice.choice(
            [supervising.expire_abandoned, ledger.close_due_buckets, enforcement.sweep]
        )
        act(now=NOON if act is enforcement.sweep else NOON + 2 * HOUR)

    def _person(self, dice: random.Random) -> int:
        return dice.choice(self.plan.subscribers)
