"""The cases of tests/scenarios/quota.yaml, each run over HTTP and checked after every step.

Money there becomes tokens here: a package of U tokens at P fen makes F fen worth F x U // P tokens.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
import yaml
from rest_framework.test import APIClient

from accounts.models import Account, Subscriber
from usage import ledger, pools, supervising
from usage.models import (
    Bucket,
    InferenceModel,
    LedgerEntry,
    Node,
    Overage,
    QuotaSession,
    UsageEvent,
)
from usage.weights import put_model, put_weight

from .conftest import BORN, END, NOON, START, event, give, make_subscriber, send
from .quota_calls import SUBJECT, create, release, terms, update

SCENARIO = Path(__file__).parent.parent / "scenarios" / "quota.yaml"
CASES: dict[str, dict[str, Any]] = {
    case["id"]: case for case in yaml.safe_load(SCENARIO.read_text())
}
S, LIMIT = "SUCCESS", "QUOTA_LIMIT_REACHED"

# What each step answers here: (result, granted, tokens free, tokens held) after it.
Step = tuple[Any, int, int, int]
OURS: dict[str, list[Step]] = {
    "resv-01-settle-lower": [(S, 8, 7, 8), (S, 0, 10, 0)],
    "resv-03-refund-unwinds-lifo": [(S, 250, 50, 250), (S, 0, 220, 0)],
    "resv-04-double-expiry": [(S, 0, 12, 0), (S, 8, 4, 8), (None, 0, 12, 0), (None, 0, 12, 0)],
    "resv-06-settle-after-expiry": [(S, 8, 7, 8), (None, 0, 15, 0), (S, 0, 11, 0)],
    "RES-01": [(S, 1000, 0, 1000)],
    "RES-02": [(S, 996, 0, 996)],
    "RES-03": [(S, 1000, 0, 1000), (LIMIT, 0, 0, 1000)],
    "RES-06": [(S, 400, 9600, 400), (S, 900, 9100, 900), (S, 100, 9900, 100)],
    "RES-07": [(S, 1000, 1500, 1000), (S, 1500, 0, 1500)],
    "RES-08": [(S, 60, 540, 60), (S, 0, 600, 0)],
    "RES-09": [(S, 60, 90, 60), (S, 60, 90, 60), (S, 0, 100, 0)],
    "RES-10": [
        (S, 800, 3200, 800),
        (S, 0, 3700, 0),
        (S, 1000, 2700, 1000),
        (S, 1000, 2300, 1000),
        (S, 0, 3050, 0),
    ],
    "RES-11": [(S, 1000, 666, 1000), (LIMIT, 0, 0, 0), (S, 0, 0, 0)],
    "RES-12": [(S, 3000, 7000, 3000), *[(S, 3000, 4500, 3000)] * 2, (S, 0, 6500, 0)],
    "RES-13": [(S, 3000, 7000, 3000), (S, 3000, 4500, 3000), (409, 0, 4500, 3000)],
    "RES-14": [(S, 4000, 6000, 4000), (None, 0, 6000, 4000), (None, 0, 10000, 0), (S, 0, 8800, 0)],
    "RES-16": [(S, 50, 0, 50)],
    "RES-17": [(S, 50_000, 950_000, 50_000)],
    "RES-18": [(404, 0, 0, 0)],
    "RES-20": [(S, 300, 0, 300), (LIMIT, 0, 0, 0), (None, 0, 250_000, 0), (S, 500, 249_500, 500)],
}
# Where our answer is another one, and why.
DIFFERS = {
    "resv-06-settle-after-expiry": "what was used is charged, flagged late_usage, as `ours` says",
    "RES-02": "less left than asked grants the rest, with `final`, instead of nothing",
    "RES-06": "a token is the unit: no package is rounded up, the hold is what was asked",
    "RES-07": "less left than asked grants the rest; the debit of the used tokens is the same",
    "RES-09": "a token is the unit: no package is rounded up",
    "RES-11": "no bucket goes below zero: what is beyond is overage; a release asks for nothing",
}
# Tested by a function of its own, here or in the file named.
ELSEWHERE = {
    "resv-07-concurrent-overspend": "here, and test_concurrency for many at once",
    "ours-03-family-pool-member-cap": "here",
    "RES-22": "here: weights are its multipliers",
    "RES-21": "here, as two sessions: one is of one model, and no package is rounded up",
    "RES-19": "test_quota_answers: the node is who holds the key, so without one it is 401",
}
NOT_OURS: dict[str, str] = {}


def test_every_case_is_tested_or_has_a_reason() -> None:
    groups = [set(OURS), set(ELSEWHERE), set(NOT_OURS)]
    assert set().union(*groups) == set(CASES)
    assert sum(map(len, groups)) == len(CASES)
    assert set(DIFFERS) <= set(OURS)


@dataclass
class Stage:
    """One case in play: the buckets by name and the refs by session."""

    client: APIClient
    subscriber: Subscriber
    clock: time_machine.Traveller
    buckets: dict[str, Bucket] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    answers: list[Any] = field(default_factory=list)

    def grant(self, name: str, tokens: int) -> None:
        self.buckets[name] = give(self.subscriber, tokens, kind="pack", key=name)

    def usage(self, op: dict[str, Any]) -> list[dict[str, Any]]:
        if not op.get("used"):
            return []
        # A retransmission carries the same event; any other report is another one.
        name = f"{op['session']}-{op.get('seq', 0)}"
        return [event(name, op["used"], at=NOON)]

    def play(self, op: dict[str, Any]) -> Any:
        verb, sequence = op["op"], op.get("seq", 0)
        if "t" in op:
            self.clock.move_to(NOON + timedelta(seconds=op["t"]))
        if verb == "topup":
            return self.grant(op["bucket"], op["amount"])
        if verb == "sweep":
            supervising.expire_abandoned(now=NOON + timedelta(seconds=op["t"]))
            return None
        if verb == "create":
            asked = {"requested": op["requested"]} | (
                {"one_shot": True, "events": self.usage(op)} if op.get("used") else {}
            )
            answer = create(self.client, op["session"], sequence, **asked)
            self.refs[op["session"]] = answer.json()["ref"]
            return answer
        ref = self.refs.get(op["session"], "qs_none")
        if verb == "release":
            return release(self.client, ref, sequence, *self.usage(op))
        asked = {} if op["requested"] is None else {"requested": op["requested"]}
        return update(self.client, ref, sequence, *self.usage(op), **asked)

    def totals(self) -> tuple[int, int]:
        """(free, held) in whole tokens over all buckets."""
        rows = Bucket.objects.values_list("remaining_mt", "reserved_mt")
        held = sum(reserved for _remaining, reserved in rows)
        return (sum(remaining for remaining, _held in rows) - held) // 1000, held // 1000


def steps_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a case; the short ones (reserve, settle, expire) told as requests."""
    steps: list[dict[str, Any]] = []
    given = case.get("given", {})
    if given.get("used"):
        steps.append({"op": "create", "session": "s0", "used": given["used"], "requested": 0})
    if given.get("reserved"):
        steps.append({"op": "create", "session": "s1", "requested": given["reserved"]})
    for step in case["when"]:
        if "op" in step:
            steps.append(step)
        elif "reserve" in step:
            steps.append({"op": "create", "session": "s1", "requested": step["reserve"]})
        elif "settle" in step:
            steps.append({"op": "release", "session": "s1", "seq": 9, "used": step["settle"]})
        else:
            times = step.get("expire") or step["expire_concurrently"]
            steps += [{"op": "sweep", "t": 600}] * times
    return steps


def tokens_of(case: dict[str, Any], bucket: dict[str, Any]) -> int:
    amount = int(bucket["amount"] if "amount" in bucket else bucket["remaining"])
    tariff = case["given"].get("tariff")
    if not tariff:
        return amount
    return amount * int(tariff["package_units"]) // int(tariff["package_price"])


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_case_answers_step_by_step(
    name: str, collector: APIClient, bare: Subscriber, clock_at_noon: time_machine.Traveller
) -> None:
    case = CASES[name]
    given = case.get("given", {})
    stage = Stage(collector, bare, clock_at_noon)
    for bucket in given.get("buckets", []):
        stage.grant(bucket["id"], tokens_of(case, bucket))
    if "total" in given:
        stage.grant("total", given["total"])
    if case.get("then", {}).get("final_unit"):
        terms(bare, final_action=case["then"]["final_unit"]["action"])
    seen: list[Step] = []
    for step in steps_of(case):
        answer = stage.play(step)
        stage.answers.append(answer)
        body = {} if answer is None else answer.json()
        result = body.get("result", None if answer is None else answer.status_code)
        seen.append((result, body.get("granted", 0), *stage.totals()))
    assert seen == OURS[name]
    if name not in DIFFERS:
        agrees(case.get("then", case.get("expect", {})), seen, stage)


def agrees(then: dict[str, Any], seen: list[Step], stage: Stage) -> None:
    """Hold what the case itself says against what was seen."""
    bodies = [None if answer is None else answer.json() for answer in stage.answers]
    said = {
        "results": [step[0] for step in seen],
        "result": seen[-1][0],
        "granted": seen[-1][1],
        "granted_last": seen[-1][1],
        "remaining_after_each": [step[2] for step in seen],
        "reserved_after_each": [step[3] for step in seen],
        "reserved": seen[-1][3],
        "http": [answer.status_code for answer in stage.answers if answer is not None],
        "cause": (bodies[-1] or {}).get("code"),
        "threshold": (bodies[-1] or {}).get("threshold"),
        "flags_last": ["late_usage"] * bool((bodies[-1] or {}).get("late_usage")),
        "ledger_debits": LedgerEntry.objects.filter(kind="debit").count(),
        "final_unit_first": ((bodies[0] or {}).get("final") or {}).get("action"),
        "final_unit": (bodies[-1] or {}).get("final"),
    }
    for key, value in then.items():
        if key == "http" and isinstance(value, int):
            value = [value]
        if key in said:
            assert said[key] == value, key
        elif key == "remaining" and isinstance(value, int):
            assert seen[-1][2] == value
        elif key in {"after_settle", "remaining"}:
            for bucket_name, tokens in value.items():
                bucket = stage.buckets.get(bucket_name)
                if bucket is not None:
                    bucket.refresh_from_db()
                    assert bucket.remaining_mt - bucket.reserved_mt == tokens * 1000
        elif key == "responses_equal":
            for first, second in value:
                assert bodies[first] == bodies[second]


def test_what_is_used_beyond_the_balance_is_recorded(node: Node, bare: Subscriber) -> None:
    ours = CASES["resv-07-concurrent-overspend"]["ours"]
    bucket = give(bare, 5)
    for number in range(5):
        send(node, event(f"e{number}", 10))
    bucket.refresh_from_db()
    assert bucket.remaining_mt == ours["balance"]
    assert sum(row.mt for row in Overage.objects.all()) == ours["overage"] * 1000


@pytest.mark.usefixtures("clock_at_noon")
@pytest.mark.django_db(transaction=True)
def test_members_get_what_their_caps_and_the_pool_allow(
    collector: APIClient, account: Account, models: dict[str, Any]
) -> None:
    given = CASES["ours-03-family-pool-member-cap"]["given"]
    one, two = (make_subscriber(account, f"+861390000000{number}") for number in (1, 2))
    pool = pools.create_pool(account_id=account.pk, name="home", kind="family", now=START)
    cap = given["members"][0]["cap"]
    pools.join(
        pool_id=pool.pk, subscriber_id=one.pk, cycle_cap_mt=cap * 1000, actor="clerk", now=START
    )
    pools.join(pool_id=pool.pk, subscriber_id=two.pk, actor="clerk", now=START)
    wanted = ledger.Grant(
        pool_id=pool.pk, kind="plan", name="共享", name_en="shared", key="pool",
        amount_mt=given["pool"] * 1000, valid_from=START, valid_until=END,
    )  # fmt: skip
    pools.grant_to_pool(wanted=wanted, now=START)
    # Where the case denies, we grant the rest and say that it is final.
    over = create(collector, "a1", requested=cap + 1).json()
    assert (over["granted"], over["final"]["action"]) == (cap, "REDIRECT")
    # What a member's other session holds counts against its cap.
    assert create(collector, "a2", requested=1).json()["result"] == LIMIT
    release(collector, over["ref"], 1)
    allowed = create(collector, "b1", requested=35_000_000, subject=two.msisdn).json()
    assert (allowed["granted"], allowed["final"]) == (35_000_000, None)
    rest = create(collector, "a3", requested=5_000_001).json()
    assert (rest["granted"], rest["final"]["action"]) == (5_000_000, "REDIRECT")


def test_one_bucket_serves_models_of_several_weights(node: Node, bare: Subscriber) -> None:
    case = CASES["RES-22"]
    bucket = give(bare, case["then"]["S"])
    for row in case["given"]["pool"]:
        put_models([f"m-{row['model']}"], milli=row["multiplier"] * 1000)
    first = send(node, event("a", 80, model="m-A"), event("b", 230, model="m-B"))
    assert first.exhausted == []
    assert send(node, event("c", 10, model="m-B")).exhausted == [(SUBJECT, "quota_exhausted")]
    bucket.refresh_from_db()
    assert bucket.remaining_mt == 0


@pytest.mark.usefixtures("clock_at_noon")
def test_two_models_are_controlled_apart_in_a_session_each(
    collector: APIClient, bare: Subscriber, node: Node
) -> None:
    """A session is of one model, so that its grant has one weight: a node that serves two to one
    subscriber opens two, which share the buckets and nothing else."""
    case = CASES["RES-21"]
    bucket = give(bare, tokens_of(case, case["given"]["buckets"][0]))
    put_models(f"rg-{rg}" for rg in case["then"]["used_total"])
    refs: dict[int, str] = {}
    held: dict[int, int] = {}
    for op in case["when"]:
        for rg, used in op.get("used_by_rg", {op.get("rg"): op.get("used", 0)}).items():
            model, asked = f"rg-{rg}", op.get("requested", 0)
            events = [event(f"{rg}-{op['seq']}", used, model=model)] if used else []
            if op["op"] == "release":
                answer = release(collector, refs[rg], op["seq"], *events)
            elif rg in refs:
                answer = update(collector, refs[rg], op["seq"], *events, requested=asked)
            else:
                answer = create(collector, model, model=model, requested=asked)
                refs[rg] = answer.json()["ref"]
            assert (answer.json()["result"], answer.json()["granted"]) == (S, asked)
            # What the other one holds is as it was.
            held[rg] = asked
            found = QuotaSession.objects.values_list("session", "granted_mt")
            assert dict(found) == {f"rg-{one}": mt * 1000 for one, mt in held.items()}
    bucket.refresh_from_db()
    used_total = {rg: used_of(f"rg-{rg}") for rg in refs}
    assert used_total == case["then"]["used_total"]
    assert bucket.reserved_mt == case["then"]["reserved"]
    assert bucket.granted_mt - bucket.remaining_mt == sum(used_total.values()) * 1000
    # The case's charge is these amounts in packages begun.
    units, price = (case["given"]["tariff"][name] for name in ("package_units", "package_price"))
    charge = {rg: -(-used // units) * price for rg, used in used_total.items()}
    assert charge == case["then"]["charge"]


def used_of(code: str) -> int:
    """What was used of a model, in whole tokens."""
    model = InferenceModel.objects.get(code=code)
    return sum(one.mt for one in UsageEvent.objects.filter(model_id=model.pk)) // 1000


def put_models(codes: Iterable[str], *, milli: int = 1000) -> None:
    """Models of one weight for every kind of token."""
    for code in codes:
        put_model(code=code, name=code, aliases=[], now=BORN)
        put_weight(
            model_code=code, input_milli=milli, cached_milli=milli, output_milli=milli,
            reasoning_milli=milli, valid_from=BORN, now=BORN,
        )  # fmt: skip
