"""Which bucket pays: the burn cases of tests/scenarios, and any waterfall against a naive one."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some
from msgspec.structs import replace

from usage.database import copied_time, time_of
from usage.models import NEVER
from usage.periods import minute_of_day
from usage.waterfall import OpenBucket, burn, in_burn_order

SCENARIOS = Path(__file__).parent.parent / "scenarios"
T0 = datetime(2026, 3, 1, tzinfo=UTC)
MODELS = {None: 3, "api-calls": 1, "storage": 2}
LAST = 32_767  # of a grant without a priority

# Where a case is tested. Names are files of this folder unless they name another one.
TESTED = {
    "burn-01-priority": "test_waterfall",
    "burn-02-earliest-expiry": "test_waterfall",
    "burn-03-earliest-expiry-among-100k": "test_waterfall",
    "burn-05-priority-then-expiry-then-null": "test_waterfall",
    "burn-06-feature-restricted-first-within-priority": "test_waterfall",
    "burn-07-priority-beats-restriction": "test_waterfall",
    "burn-09-fifo-traceability": "test_waterfall",
    "life-01-expired-grant-not-burned": "test_waterfall",
    "life-02-void-mid-period": "test_ledger",
    "life-04-later-grant-must-not-pay-closed-period": "test_charging",
    "life-09-breakage": "test_ledger",
    "life-08-as-of-balance": "test_balance_as_of",
    "roll-01-max-rollover": "test_rollover",
    "roll-04-percentage-cap": "test_rollover",
    "roll-05-percentage-below-cap": "test_rollover",
    "BAL-01": "test_charging",
    "BAL-06": "test_pools",
    "BAL-08": "test_quota",
    "BAL-09": "test_movements",
    "BAL-10": "test_corrections",
    "BAL-13": "test_rollover",
    "BAL-11": "test_ledger",
    "BAL-14": "test_charging",
    "idem-01-debit-twice-same-key": "test_ledger",
    "idem-02-retry-with-new-timestamp": "test_verdicts",
    "idem-03-same-id-different-payload": "test_verdicts",
    "idem-04-batch-with-one-duplicate": "test_verdicts",
    "idem-05-worker-crash-replay": "tests/faults/test_kill_ingest",
    "late-01-original-period": "tests/invoicing/test_late_and_rerated",
    "late-07-balance-identity": "test_charging",
    "ours-02-weighted-tokens": "test_verdicts",
    "USG-01": "test_verdicts",
    "USG-02": "tests/faults/test_kill_ingest",
    "USG-03": "tests/invoicing/test_late_and_rerated",
    "RA-01": "test_proof",
}
# Where our answer is another one, and why.
DIFFERS = {
    "BAL-01": "a report is never refused: what is left pays, the rest is uncovered and free",
    "BAL-10": "taken back is the difference: the unit that stays used is the one that has expired",
}
NOT_OURS = {"BAL-02": "there are no buckets of money; weights stand where its factors do"}


def cases() -> dict[str, dict[str, Any]]:
    files = [SCENARIOS / "balances.yaml", SCENARIOS / "events.yaml"]
    return {case["id"]: case for file in files for case in yaml.safe_load(file.read_text())}


CASES = cases()


def test_every_case_is_tested_or_has_a_reason() -> None:
    assert set(CASES) == set(TESTED) | set(NOT_OURS)
    assert not set(TESTED) & set(NOT_OURS)
    assert set(DIFFERS) <= set(TESTED)


ELSEWHERE = [(name, room) for name, room in TESTED.items() if room != "test_waterfall"]


@pytest.mark.parametrize(("name", "room"), ELSEWHERE)
def test_a_case_is_named_where_it_is_tested(name: str, room: str) -> None:
    folder = Path(__file__).parent if "/" not in room else SCENARIOS.parent.parent
    number = "-".join(name.split("-")[:2])
    assert number in (folder / f"{room}.py").read_text()


def offset(text: Any) -> datetime:
    """`T0+30d`, `T0-1y+1d`, or a date."""
    if not isinstance(text, str):
        return datetime(text.year, text.month, text.day, tzinfo=UTC)
    hours = {"m": 1 / 60, "h": 1, "d": 24, "y": 24 * 365}
    moved = T0
    for part in text.removeprefix("T0").replace("-", " -").replace("+", " +").split():
        moved += timedelta(hours=float(part[:-1]) * hours[part[-1]])
    return moved


def opened(grants: Sequence[dict[str, Any]]) -> list[OpenBucket]:
    """The buckets of a case, numbered from 1, in tokens instead of millitokens."""
    return [
        OpenBucket(
            owner_id=1,
            id=number,
            priority=grant.get("priority", 1) or LAST,
            valid_from=copied_time(offset(grant.get("effective", "T0-2y"))),
            valid_until=copied_time(offset(grant["expires"]) if "expires" in grant else NEVER),
            for_all_models="features" not in grant,
            model_ids=[MODELS[name] for name in grant.get("features", ())],
            created_at=copied_time(T0 + timedelta(seconds=grant.get("created", number))),
            available_mt=grant["amount"],
            size_mt=grant["amount"],
        )
        for number, grant in enumerate(grants, 1)
    ]


@pytest.mark.parametrize(
    "name", [name for name in CASES if name.startswith("burn") and "03" not in name]
)
def test_a_burn_case_takes_exactly_what_it_says(name: str) -> None:
    case = CASES[name]
    grants, step, expect = case["given"]["grants"], case["when"][0], case["expect"]
    buckets = opened(grants)
    names = {bucket.id: grant.get("id", "") for bucket, grant in zip(buckets, grants, strict=True)}
    supplied = list(reversed(buckets))
    taken, uncovered = burn(
        in_burn_order(supplied),
        model_id=MODELS[step.get("feature")],
        at=copied_time(offset(step.get("at", "T0+1h"))),
        mt=step.get("usage", step.get("collect")),
    )
    left = {names[bucket.id]: bucket.available_mt for bucket in buckets}
    rows = [[names[bucket.id], part] for bucket, part in taken]
    for key, value in expect.items():
        if key in left:
            assert left[key] == value
    assert expect.get("overage", uncovered) == uncovered
    assert expect.get("taken_in_order", rows) == rows
    assert expect.get("link_rows", rows) == rows
    assert expect.get("sto_untouched", 40) == left.get("sto", 40)
    if name.startswith("burn-05"):
        assert [(bucket.id, part) for bucket, part in taken] == [(5, 60), (3, 30)]
        assert sum(bucket.available_mt for bucket in buckets) == expect["total_remaining"]


def test_the_earliest_expiring_of_a_thousand_is_found() -> None:
    buckets = opened([{"amount": 100, "expires": "T0+30d"}] * 1000)
    buckets[777].valid_until = copied_time(offset("T0+29d"))
    random.Random(3).shuffle(buckets)
    taken, uncovered = burn(in_burn_order(buckets), model_id=1, at=copied_time(T0), mt=99)
    assert ([(bucket.id, part) for bucket, part in taken], uncovered) == ([(778, 99)], 0)
    assert sorted(bucket.available_mt for bucket in buckets) == [1] + [100] * 999


def test_an_expired_grant_pays_nothing() -> None:
    case = CASES["life-01-expired-grant-not-burned"]
    buckets = opened(case["given"]["grants"])
    step = case["when"][0]
    taken, uncovered = burn(
        buckets, model_id=1, at=copied_time(offset(step["at"])), mt=step["usage"]
    )
    assert (taken, uncovered) == ([], case["expect"]["overage"])


@pytest.mark.parametrize(
    ("at", "pays"), [(-1, False), (0, True), (3_599_999_999, True), (3_600_000_000, False)]
)
def test_a_bucket_pays_from_its_start_to_just_before_its_end(at: int, pays: bool) -> None:
    [bucket] = opened([{"amount": 1, "effective": "T0+0h", "expires": "T0+1h"}])
    instant = copied_time(T0) + at
    assert bucket.pays_for(model_id=1, at=instant) is pays


def test_never_expiring_burns_after_all_that_expire() -> None:
    never, soon = opened([{"amount": 1}, {"amount": 1, "expires": "T0+99y"}])
    assert in_burn_order([never, soon]) == [soon, never]


def test_creation_then_id_decide_between_equals() -> None:
    first, second = opened([{"amount": 1, "created": 5}, {"amount": 1, "created": 5}])
    older = replace(second, id=9, created_at=copied_time(T0))
    assert in_burn_order([second, older, first]) == [older, first, second]


def hour(number: int) -> int:
    return copied_time(T0 + timedelta(hours=number))


def bucket_of_models(model_ids: Sequence[int], **about: Any) -> OpenBucket:
    return OpenBucket(owner_id=1, for_all_models=not model_ids, model_ids=model_ids, **about)


buckets_of_any_kind = some.lists(
    some.builds(
        bucket_of_models,
        id=some.integers(1, 10**6),
        priority=some.integers(1, 3),
        valid_from=some.integers(-3, 0).map(hour),
        valid_until=some.integers(1, 3).map(hour),
        model_ids=some.lists(some.integers(1, 2), max_size=1),
        created_at=some.integers(0, 2).map(hour),
        available_mt=some.integers(0, 12),
        size_mt=some.just(12),
    ),
    max_size=7,
    unique_by=lambda bucket: bucket.id,
)
events_of_any_kind = some.lists(
    some.tuples(
        some.integers(1, 2),
        some.integers(-3, 3).map(hour),
        some.integers(0, 25),
    ),
    max_size=6,
)


def naive(
    buckets: list[OpenBucket], events: list[tuple[int, int, int]]
) -> tuple[dict[int, int], int]:
    """Millitoken by millitoken, asking every bucket each time."""
    left = {bucket.id: bucket.available_mt for bucket in buckets}
    uncovered = 0
    for model_id, at, mt in events:
        for _one in range(mt):
            best: OpenBucket | None = None
            for bucket in buckets:
                usable = left[bucket.id] > 0 and bucket.valid_from <= at < bucket.valid_until
                if usable and (not bucket.model_ids or model_id in bucket.model_ids):
                    best = bucket if best is None or _before(bucket, best) else best
            if best is None:
                uncovered += 1
            else:
                left[best.id] -= 1
    return left, uncovered


def _before(one: OpenBucket, other: OpenBucket) -> bool:
    if one.priority != other.priority:
        return one.priority < other.priority
    if one.valid_until != other.valid_until:
        return one.valid_until < other.valid_until
    if one.for_all_models != other.for_all_models:
        return not one.for_all_models
    if one.created_at != other.created_at:
        return one.created_at < other.created_at
    return one.id < other.id


@given(buckets=buckets_of_any_kind, events=events_of_any_kind)
def test_any_waterfall_equals_the_naive_one(
    buckets: list[OpenBucket], events: list[tuple[int, int, int]]
) -> None:
    expected, beyond = naive(buckets, events)
    had = sum(bucket.available_mt for bucket in buckets)
    ordered = in_burn_order(buckets)
    taken_mt = uncovered_mt = 0
    for model_id, at, mt in events:
        taken, uncovered = burn(ordered, model_id=model_id, at=at, mt=mt)
        assert sum(part for _id, part in taken) + uncovered == mt
        assert all(part > 0 for _id, part in taken)
        taken_mt += mt - uncovered
        uncovered_mt += uncovered
    assert {bucket.id: bucket.available_mt for bucket in buckets} == expected
    assert uncovered_mt == beyond
    assert had - taken_mt == sum(expected.values())


@given(at=some.integers(0, copied_time(NEVER) - 1))
def test_hours_are_those_of_the_billing_zone(at: int) -> None:
    [bucket] = opened([{"amount": 1}])
    bucket.valid_from = 0
    assert copied_time(time_of(at)) == at
    minute = minute_of_day(time_of(at))
    bucket.hours = minute, (minute + 1) % 1440
    assert bucket.is_valid(at)
    bucket.hours = (minute + 1) % 1440, minute
    assert not bucket.is_valid(at)
