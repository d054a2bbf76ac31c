"""The balance as of any past instant is what the ledger had recorded by then."""

import random
from datetime import datetime, timedelta
from typing import Any

from accounts import keys
from accounts.models import Subscriber
from usage import balances, ledger, movements, pools
from usage.models import Bucket, Node

from .conftest import END, HOUR, INSTANT, NOON, SECOND, START, client_of, event, give, send
from .test_pools import fill, join

DAY = timedelta(days=1)


def as_of(who: Subscriber, at: datetime) -> int:
    return balances.balance_as_of(subscriber_id=who.pk, at=at).available_mt


def test_what_was_recorded_later_is_not_in_it(node: Node, bare: Subscriber) -> None:
    """life-08: what is booked a day later shows from then on."""
    give(bare, 50, now=NOON)
    later = NOON + DAY
    send(node, event("e1", 30, at=later), now=later)
    assert [as_of(bare, when) for when in (NOON - INSTANT, NOON, later - INSTANT, later)] == [
        0, 50_000, 50_000, 20_000,
    ]  # fmt: skip


def test_a_closed_month_is_still_told(node: Node, bare: Subscriber, month: Bucket) -> None:
    send(node, event("e1", 300))
    ledger.close_due_buckets(now=END + HOUR)
    found = balances.balance_as_of(subscriber_id=bare.pk, at=END - INSTANT)
    assert (found.available_mt, found.granted_mt, found.blocked) == (700_000, 1_000_000, "")
    assert as_of(bare, END) == 0


def test_overage_and_blocks_are_those_of_then(node: Node, bare: Subscriber) -> None:
    give(bare, 10)
    send(node, event("e1", 15))
    send(node, event("e2", 1, at=NOON + HOUR), now=NOON + HOUR)
    before = balances.balance_as_of(subscriber_id=bare.pk, at=NOON - INSTANT)
    then = balances.balance_as_of(subscriber_id=bare.pk, at=NOON)
    assert (before.uncovered_mt, before.blocked) == (0, "")
    assert (then.uncovered_mt, then.blocked) == (5000, "quota_exhausted")


def test_every_past_instant_of_a_random_life_is_told_as_it_was(
    node: Node, bare: Subscriber
) -> None:
    dice = random.Random(8)
    seen: list[tuple[datetime, int]] = []
    first = give(bare, 100)
    for step in range(30):
        now = NOON + step * HOUR
        if dice.random() < 0.3:
            give(bare, dice.randint(1, 50), kind="pack", now=now, end=END)
        elif dice.random() < 0.3:
            movements.adjust(
                bucket_id=first.pk, amount_mt=dice.randint(1, 999), key=str(step), actor="c",
                reason="r", now=now,
            )  # fmt: skip
        else:
            send(node, event(f"e{step}", dice.randint(1, 40), at=now), now=now)
        seen.append((now, balances.balance(subscriber_id=bare.pk, now=now).available_mt))
    assert [(when, as_of(bare, when)) for when, _mt in seen] == seen


def test_the_api_answers_for_the_past_alone(
    node: Node, bare: Subscriber, clock_at_noon: object
) -> None:
    give(bare, 50)
    send(node, event("e1", 30, at=NOON - HOUR), now=NOON - HOUR)
    _key, token = keys.issue_key(kind="subscriber", subscriber_id=bare.pk, now=START)
    client = client_of(token)

    def ask(text: str) -> tuple[int, int | None]:
        answer = client.get("/api/v1/me/balance", {"as_of": text})
        return answer.status_code, answer.json().get("available_mt")

    assert ask((NOON - 2 * HOUR).isoformat()) == (200, 50_000)
    assert ask(NOON.isoformat()) == (200, 20_000)
    for text in ((NOON + SECOND).isoformat(), "2026-11-24T10:00:00", "yesterday"):
        assert ask(text)[0] == 400


def test_staff_ask_for_anybody_s_balance_and_a_pool_s_as_of_then(
    node: Node, bare: Subscriber, neighbour: Subscriber, clock_at_noon: object
) -> None:
    own = give(bare, 50)
    pool = pools.create_pool(
        account_id=bare.account_id, name="Wang", kind="family", now=NOON - 3 * HOUR
    )
    shared = fill(pool, 80, now=NOON - 3 * HOUR)
    join(pool, bare, now=NOON - 3 * HOUR)
    send(node, event("e1", 70, at=NOON - HOUR), now=NOON - HOUR)
    _key, token = keys.issue_key(kind="staff", scopes=["accounts:read"], name="crm", now=START)
    staff = client_of(token)

    def ask(path: str, **query: str) -> Any:
        answer = staff.get(f"/api/v1/{path}", query)
        return answer.json() if answer.status_code == 200 else answer.status_code

    before = {"as_of": (NOON - 2 * HOUR).isoformat()}
    balance = f"subscribers/{bare.pk}/balance"
    assert [ask(balance, **query)["available_mt"] for query in ({}, before)] == [0, 50_000]
    assert ask(balance, **before)["buckets"][0]["id"] == own.pk
    assert ask(f"subscribers/{neighbour.pk}/balance")["available_mt"] == 1_000_000
    [then] = ask(f"pools/{pool.pk}", **before)["buckets"]
    [present] = ask(f"pools/{pool.pk}")["buckets"]
    assert (then["id"], then["granted_mt"], then["remaining_mt"]) == (shared.pk, 80_000, 80_000)
    assert present["remaining_mt"] == 60_000
    assert ask(f"pools/{pool.pk}", as_of=(NOON - 4 * HOUR).isoformat())["buckets"] == []
    for path in (balance, f"pools/{pool.pk}"):
        assert ask(path, as_of="yesterday") == ask(path, as_of="2999-01-01T00:00:00Z") == 400
    assert ask("subscribers/999999/balance") == 404
    _key, own_token = keys.issue_key(kind="subscriber", subscriber_id=bare.pk, now=START)
    assert client_of(own_token).get(f"/api/v1/{balance}").status_code == 403
    assert client_of("a.b").get(f"/api/v1/{balance}").status_code == 401
