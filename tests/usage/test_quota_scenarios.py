"""The cases of tests/scenarios/quota.yaml, each run over HTTP and checked after every step."""

from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import time_machine
import yaml
from rest_framework.test import APIClient

from accounts.models import Account, Subscriber
from usage import ledger, pools
from usage.models import (
    InferenceModel,
    Node,
    Overage,
    QuotaSession,
    UsageBatch,
    UsageEvent,
)
from usage.weights import put_model, put_weight

from .conftest import BORN, END, START, event, give, make_subscriber, send
from .quota_calls import SUBJECT, create, release, terms, update
from .quota_stage import Stage, Step, observed_in, said_by, steps_of, tokens_of
from .test_concurrency import at_once

SCENARIO = Path(__file__).parent.parent / "scenarios" / "quota.yaml"
CASES: dict[str, dict[str, Any]] = {
    case["id"]: case for case in yaml.safe_load(SCENARIO.read_text())
}
S, LIMIT = "SUCCESS", "QUOTA_LIMIT_REACHED"

# What each step answers here.
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
# What of a case has another answer here, and why; all else that it says must hold.
DIFFERS: dict[str, tuple[set[str], str]] = {
    "resv-06-settle-after-expiry": ({"settle"}, "our flag is late_usage; see LATE"),
    "RES-02": (
        {"granted", "result", "buckets b1", "open_sessions"},
        "less left than asked grants the rest, with `final`, instead of nothing",
    ),
    "RES-06": ({"buckets_after_each"}, "a token is the unit: the hold is what was asked"),
    "RES-07": (
        {"results", "granted_last", "buckets b1", "session_state"},
        "less left than asked grants the rest; the debit of the used tokens is the same",
    ),
    "RES-09": ({"buckets b2"}, "a token is the unit: no package is rounded up"),
    "RES-11": (
        {"results", "total_charge", "net_balance"},
        "no bucket goes below zero: what is beyond is overage; a release asks for nothing",
    ),
    "RES-17": ({"triggers"}, "threshold, granted and validity_seconds say when to ask"),
}
# Whose last answer is flagged `late_usage`.
LATE = {"resv-06-settle-after-expiry", "RES-14"}
# Who uses more than there is: tokens that no bucket covers.
BEYOND = {"RES-11": 2500 - 1666}
# Tested by a function of its own, here or in the file named.
ELSEWHERE = {
    "resv-07-concurrent-overspend": "here, and test_concurrency for many at once",
    "ours-03-family-pool-member-cap": "here: where it denies, we grant the rest, with `final`",
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


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_case_answers_step_by_step(
    name: str, collector: APIClient, bare: Subscriber, clock_at_noon: time_machine.Traveller
) -> None:
    case = CASES[name]
    given = case.get("given", {})
    said = said_by(case)
    stage = Stage(collector, bare, clock_at_noon)
    if "notify" in said:
        stage.notify_url = "https://node.example/told"
    for bucket in given.get("buckets", []):
        stage.grant(bucket["id"], tokens_of(case, bucket))
    if "total" in given:
        stage.grant("total", given["total"])
    if "final_unit" in said:
        terms(bare, final_action=said["final_unit"]["action"])
    seen = [stage.look(stage.play(step)) for step in steps_of(case)]
    assert seen == OURS[name]
    differing, _why = DIFFERS.get(name, (set(), ""))
    assert differing <= set(said), "a reason for what the case does not say"
    observed = observed_in(seen, stage)
    for key, value in said.items():
        if key in differing:
            assert observed.get(key) != value, f"{key} is the same after all"
        else:
            assert observed[key] == value, key
    assert observed["flags_last"] == ["late_usage"] * (name in LATE)
    assert sum(row.mt for row in Overage.objects.all()) == BEYOND.get(name, 0) * 1000


@pytest.mark.django_db(transaction=True)
def test_what_is_used_beyond_the_balance_is_recorded(node: Node, bare: Subscriber) -> None:
    case = CASES["resv-07-concurrent-overspend"]
    bucket = give(bare, case["given"]["balance"])
    [step] = case["when"]
    used = step["track_concurrently"]
    at_once(len(used), lambda number: send(node, event(f"e{number}", used[number])))
    bucket.refresh_from_db()
    assert case["ours"] == {
        "balance": bucket.remaining_mt // 1000,
        "recorded_usage": sum(one.mt for one in UsageEvent.objects.all()) // 1000,
        "overage": sum(row.mt for row in Overage.objects.all()) // 1000,
    }


@pytest.mark.usefixtures("clock_at_noon")
@pytest.mark.django_db(transaction=True)
def test_members_get_what_their_caps_and_the_pool_allow(
    collector: APIClient, account: Account, models: dict[str, Any]
) -> None:
    case = CASES["ours-03-family-pool-member-cap"]
    given, wants = case["given"], [step["reserve"] for step in case["when"]]
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
    over = create(collector, "a1", requested=wants[0]).json()
    assert (over["granted"], over["final"]["action"]) == (cap, "REDIRECT")
    # What a member's other session holds counts against its cap.
    assert create(collector, "a2", requested=1).json()["result"] == LIMIT
    release(collector, over["ref"], 1)
    allowed = create(collector, "b1", requested=wants[1], subject=two.msisdn).json()
    assert (allowed["granted"], allowed["final"]) == (wants[1], None)
    rest = create(collector, "a3", requested=wants[2]).json()
    assert rest["granted"] == given["pool"] - wants[1] == wants[2] - 1
    assert rest["final"]["action"] == "REDIRECT"


def test_one_bucket_serves_models_of_several_weights(node: Node, bare: Subscriber) -> None:
    case = CASES["RES-22"]
    bucket = give(bare, case["then"]["S"])
    for row in case["given"]["pool"]:
        put_models([f"m-{row['model']}"], milli=row["multiplier"] * 1000)
    first = send(node, event("a", 80, model="m-A"), event("b", 230, model="m-B"))
    second = send(node, event("c", 10, model="m-B"))
    asked = [one.exhausted == [(SUBJECT, "quota_exhausted")] for one in (first, second)]
    assert asked == case["then"]["reauthorise"]
    spent = UsageBatch.objects.order_by("id").values_list("accepted_mt", flat=True)
    assert [mt // 1000 for mt in accumulate(spent)] == case["then"]["consumed"]
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
