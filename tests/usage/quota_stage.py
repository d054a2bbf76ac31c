"""Plays a case of tests/scenarios/quota.yaml over HTTP, and tells what came out under the names
that cases use.

Money there becomes tokens here: a package of U tokens at P fen makes F fen worth F x U // P tokens.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from itertools import combinations
from typing import Any

import time_machine
from rest_framework.test import APIClient

from accounts.models import Subscriber
from usage import supervising
from usage.models import Bucket, Callback, LedgerEntry, UsageEvent

from .conftest import NOON, event, give
from .quota_calls import create, release, update

# After a step: (result, granted, tokens free, tokens held).
Step = tuple[Any, int, int, int]


@dataclass
class Stage:
    """One case in play: the buckets by name and the refs by session."""

    client: APIClient
    subscriber: Subscriber
    clock: time_machine.Traveller
    notify_url: str = ""
    buckets: dict[str, Bucket] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    # After each step:
    answers: list[Any] = field(default_factory=list)
    amounts: list[dict[str, tuple[int, int]]] = field(default_factory=list)
    told: list[list[str]] = field(default_factory=list)

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
            if self.notify_url:
                asked["notify_url"] = self.notify_url
            answer = create(self.client, op["session"], sequence, **asked)
            self.refs[op["session"]] = answer.json()["ref"]
            return answer
        ref = self.refs.get(op["session"], "qs_none")
        if verb == "release":
            return release(self.client, ref, sequence, *self.usage(op))
        asked = {} if op["requested"] is None else {"requested": op["requested"]}
        return update(self.client, ref, sequence, *self.usage(op), **asked)

    def look(self, answer: Any) -> Step:
        """Note what a step has left: its answer, (free, held) of each bucket, and callbacks."""
        rows = {name: Bucket.objects.get(pk=one.pk) for name, one in self.buckets.items()}
        assert Bucket.objects.count() == len(rows)
        now = {
            name: ((one.remaining_mt - one.reserved_mt) // 1000, one.reserved_mt // 1000)
            for name, one in rows.items()
        }
        self.answers.append(answer)
        self.amounts.append(now)
        self.told.append(list(Callback.objects.order_by("id").values_list("kind", flat=True)))
        body = {} if answer is None else answer.json()
        result = body.get("result", None if answer is None else answer.status_code)
        free, held = (sum(pair[place] for pair in now.values()) for place in (0, 1))
        return result, body.get("granted", 0), free, held


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


def said_by(case: dict[str, Any]) -> dict[str, Any]:
    """What a case says comes out, a bucket an entry, in tokens."""
    said: dict[str, Any] = {}
    for key, value in (case.get("then") or case.get("expect") or case["ours"]).items():
        if key == "buckets":
            for bucket, held in value.items():
                amounts = dict.fromkeys(("remaining", "reserved"), 0)
                if held != "absent_or_zero":
                    amounts = {one: tokens_of(case, {"amount": held[one]}) for one in amounts}
                said[f"{key} {bucket}"] = amounts
        elif key in {"remaining", "after_reserve", "after_settle"} and isinstance(value, dict):
            said |= {f"{key} {bucket}": tokens for bucket, tokens in value.items()}
        else:
            said[key] = [value] if key == "http" and isinstance(value, int) else value
    return said


def observed_in(seen: list[Step], stage: Stage) -> dict[str, Any]:
    """What came out, under the names that cases give it."""
    bodies = [None if answer is None else answer.json() for answer in stage.answers]
    first, last = bodies[0] or {}, bodies[-1] or {}
    results, granted, free, held = (list(column) for column in zip(*seen, strict=True))
    started = sum(one.granted_mt for one in stage.buckets.values()) // 1000
    observed: dict[str, Any] = {
        "results": results,
        "result": results[-1],
        "granted": granted[-1],
        "granted_last": granted[-1],
        "granted_each": [None if body is None else body.get("granted") for body in bodies],
        "remaining": free[-1],
        "remaining_after_each": free,
        "reserved": held[-1],
        "reserved_after_each": held,
        "events": [before - after for before, after in zip([started, *free], free, strict=False)],
        "total_used": sum(one.mt for one in UsageEvent.objects.all()) // 1000,
        "http": [answer.status_code for answer in stage.answers if answer is not None],
        "cause": last.get("code"),
        "threshold": last.get("threshold"),
        "flags_last": ["late_usage"] * bool(last.get("late_usage")),
        "ledger_debits": LedgerEntry.objects.filter(kind="debit").count(),
        "final_unit_first": (first.get("final") or {}).get("action"),
        "final_unit": last.get("final"),
        "responses_equal": [
            [one, two]
            for one, two in combinations(range(len(bodies)), 2)
            if bodies[one] == bodies[two]
        ],
        "after_settle remaining": free[-1],
    }
    for number, kinds in enumerate(stage.told, start=1):
        if kinds:
            assert kinds == ["REAUTHORIZE"]
            observed.setdefault("notify", {"type": "REAUTHORIZATION", "after_step": number})
    for bucket, (left, reserved) in stage.amounts[-1].items():
        observed[f"buckets {bucket}"] = {"remaining": left, "reserved": reserved}
        observed[f"remaining {bucket}"] = observed[f"after_settle {bucket}"] = left
    for bucket, (left, _reserved) in stage.amounts[0].items():
        observed[f"after_reserve {bucket}"] = left
    return observed
