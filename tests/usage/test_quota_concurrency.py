"""Many at once, and any order: tokens are conserved and nothing stays held."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from accounts.models import Account, Subscriber
from usage import ledger, pools, proof, quota, supervising
from usage.models import Bucket, Node, QuotaSession, UsageBatch, UsageEvent

from .conftest import END, NOON, START, event, give, make_subscriber, send
from .test_charging import payg
from .test_concurrency import closing
from .test_set_aside import LOCK_POOLS, reported_while_held


def ask(sequence: int, requested: int | None = 0, *events: dict[str, Any]) -> quota.Ask:
    raw = [json.dumps(one).encode() for one in events]
    digest = repr((sequence, requested, raw)).encode()
    return quota.Ask(sequence=sequence, digest=digest, requested=requested, events=raw)


def total_left(*subscribers: Subscriber) -> int:
    rows = Bucket.objects.filter(subscriber__in=subscribers)
    assert not any(rows.values_list("reserved_mt", flat=True))
    return sum(rows.values_list("remaining_mt", flat=True))


@pytest.mark.django_db(transaction=True)
def test_the_same_create_from_eight_threads_opens_one_session(
    node: Node, subscriber: Subscriber, month: Bucket
) -> None:
    def create(_: int) -> quota.Answer:
        return quota.create(
            node=node, name="s1", subject=subscriber.msisdn, model="plain",
            ask=ask(0, 100, event("e1", 10)), now=NOON,
        )  # fmt: skip

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(closing(create), range(8)))
    assert all(one == answers[0] for one in answers)
    assert QuotaSession.objects.count() == UsageEvent.objects.count() == 1
    month.refresh_from_db()
    assert (month.remaining_mt, month.reserved_mt) == (990_000, 100_000)
    assert proof.verify() == []


@pytest.mark.django_db(transaction=True)
def test_the_same_update_from_eight_threads_is_charged_once(
    node: Node, subscriber: Subscriber, month: Bucket
) -> None:
    opened = quota.create(
        node=node, name="s1", subject=subscriber.msisdn, model="plain", ask=ask(0, 100), now=NOON
    )

    def update(_: int) -> quota.Answer:
        return quota.update(
            node=node, ref=opened.body["ref"], ask=ask(1, 100, event("e1", 40)), now=NOON
        )

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(closing(update), range(8)))
    assert all(one == answers[0] for one in answers)
    month.refresh_from_db()
    assert (month.remaining_mt, month.reserved_mt) == (960_000, 100_000)


def talk(node: Node, people: list[Subscriber], worker: int) -> int:
    """Open, update and mostly release sessions; answers with the tokens reported."""
    dice = random.Random(worker)
    used = 0
    for turn in range(8):
        person = dice.choice(people)
        name = f"{worker}-{turn}"
        opened = quota.create(
            node=node, name=name, subject=person.msisdn, model="plain",
            ask=ask(0, dice.randint(1, 300)), now=NOON,
        )  # fmt: skip
        ref = opened.body["ref"]
        for sequence in (1, 2):
            spent = dice.randint(1, 60)
            used += spent
            given = event(f"{name}-{sequence}", spent, subject=dice.choice(people).msisdn)
            quota.update(
                node=node, ref=ref, ask=ask(sequence, dice.randint(0, 200), given), now=NOON
            )
        if dice.random() < 0.8:
            quota.release(node=node, ref=ref, ask=ask(3), now=NOON)
    return used


def report(node: Node, people: list[Subscriber], worker: int) -> int:
    """Report plain batches beside sessions that expire."""
    dice = random.Random(worker)
    used = 0
    for turn in range(12):
        batch = []
        for number in range(5):
            spent = dice.randint(1, 20)
            used += spent
            subject = dice.choice(people).msisdn
            batch.append(event(f"r{worker}-{turn}-{number}", spent, subject=subject))
        send(node, *batch)
        supervising.expire_abandoned(now=NOON + timedelta(seconds=600))
    return used


@pytest.mark.django_db(transaction=True)
def test_sessions_reports_and_grants_beside_each_other_neither_deadlock_nor_drift(
    node: Node, account: Account, models: dict[str, Any]
) -> None:
    people = [make_subscriber(account, f"+861390000010{number}") for number in range(3)]
    for person in people:
        for _bucket in range(3):
            give(person, 500)
    payg(people[2], cap=1000)
    pool = pools.create_pool(account_id=account.pk, name="home", kind="family", now=START)
    for person in people[:2]:
        pools.join(pool_id=pool.pk, subscriber_id=person.pk, actor="clerk", now=START)
    wanted = ledger.Grant(
        pool_id=pool.pk, kind="plan", name="共享", name_en="shared", amount_mt=2_000_000,
        valid_from=START, valid_until=END, key="pool",
    )  # fmt: skip
    shared, _new = pools.grant_to_pool(wanted=wanted, now=START)

    with ThreadPoolExecutor(10) as pool_of_threads:
        runs = [
            pool_of_threads.submit(closing(partial(talk, node, people)), worker)
            for worker in range(8)
        ]
        runs += [
            pool_of_threads.submit(closing(partial(report, node, people)), worker)
            for worker in (8, 9)
        ]
        used = sum(run.result() for run in runs)
    assert proof.verify() == []
    supervising.expire_abandoned(now=NOON + timedelta(hours=1))
    assert not QuotaSession.objects.filter(state="open").exists()
    shared.refresh_from_db()
    assert shared.reserved_mt == 0
    assert sum(UsageEvent.objects.values_list("mt", flat=True)) == used * 1000
    beyond = UsageBatch.objects.values_list("overage_mt", "uncovered_mt")
    left = total_left(*people) + shared.remaining_mt
    granted = 3 * 3 * 500_000 + 2_000_000
    assert granted - left == used * 1000 - sum(map(sum, beyond))
    assert proof.verify() == []


@pytest.mark.parametrize("seed", range(12))
def test_any_interleaving_conserves_tokens(
    node: Node, bare: Subscriber, models: dict[str, Any], seed: int
) -> None:
    dice = random.Random(seed)
    granted = 0
    for _bucket in range(dice.randint(1, 4)):
        restricted = [models["plain"].pk] if dice.random() < 0.3 else []
        size = dice.randint(1, 400)
        granted += size
        give(bare, size, model_ids=restricted, kind=dice.choice(["plan", "pack", "promotion"]))
    if dice.random() < 0.5:
        payg(bare, cap=dice.randint(1, 300))
    refs: dict[str, int] = {}
    used_mt = 0
    now = NOON
    for step in range(40):
        now += timedelta(seconds=dice.choice([0, 1, 200]))
        model = dice.choice(["plain", "fine"])
        given = [event(f"e{step}", dice.randint(0, 50), at=now, model=model)] * dice.randint(0, 2)
        if not refs or dice.random() < 0.3:
            answer = quota.create(
                node=node, name=f"s{step}", subject=bare.msisdn, model=model,
                ask=ask(0, dice.choice([None, 0, 1, 100, 10_000]), *given), now=now,
            )  # fmt: skip
            refs[answer.body["ref"]] = 0
        else:
            ref = dice.choice(sorted(refs))
            refs[ref] += 1
            question = ask(refs[ref], dice.choice([None, 0, 70, 500]), *given)
            verb = quota.release if dice.random() < 0.3 else quota.update
            answer = verb(node=node, ref=ref, ask=question, now=now)
            assert verb(node=node, ref=ref, ask=question, now=now) == answer
            if verb is quota.release:
                del refs[ref]
        if step % 7 == 0:
            supervising.expire_abandoned(now=now)
        if step == 20:
            ledger.close_due_buckets(now=now)
    for ref, sequence in refs.items():
        quota.release(node=node, ref=ref, ask=ask(sequence + 1), now=now)
    used_mt = sum(UsageEvent.objects.values_list("mt", flat=True))
    beyond = sum(map(sum, UsageBatch.objects.values_list("overage_mt", "uncovered_mt")))
    assert granted * 1000 - total_left(bare) == used_mt - beyond
    bare.charging_profile.refresh_from_db()
    assert bare.charging_profile.reserved_payg_mt == 0
    assert proof.verify() == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("ends", ["released", "abandoned"])
def test_what_a_pool_holds_is_given_back_by_who_has_locked_it(
    node: Node, bare: Subscriber, account: Account, ends: str
) -> None:
    pool = pools.create_pool(account_id=account.pk, name="home", kind="family", now=START)
    pools.join(pool_id=pool.pk, subscriber_id=bare.pk, actor="clerk", now=START)
    wanted = ledger.Grant(
        pool_id=pool.pk, kind="plan", name="p", name_en="p", amount_mt=500_000, key="p",
        valid_from=START, valid_until=END,
    )  # fmt: skip
    shared, _new = pools.grant_to_pool(wanted=wanted, now=START)
    about: dict[str, Any] = {"node": node, "name": "s", "subject": bare.msisdn, "model": "plain"}
    ref = quota.create(**about, ask=ask(0, 400), now=NOON).body["ref"]

    def end() -> Any:
        if ends == "released":
            return quota.release(node=node, ref=ref, ask=ask(1), now=NOON)
        return supervising.expire_abandoned(now=NOON + timedelta(hours=1))

    with reported_while_held(LOCK_POOLS, [pool.pk], end) as ending:
        shared.refresh_from_db()
        assert shared.reserved_mt == 400_000
    ending.result(timeout=20)
    shared.refresh_from_db()
    assert shared.reserved_mt == 0
    assert proof.verify() == []
