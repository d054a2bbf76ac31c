"""Who may be served: the answer, the feed and the notices, at once and by the sweep."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts import lifecycle
from accounts.models import Account, OutboxMessage, Subscriber
from usage import enforcement, movements, profiles, tasks
from usage.models import BlockChange, Bucket, ChargingProfile, Node, Notice

from .conftest import (
    END,
    HOUR,
    INSTANT,
    NOON,
    SECOND,
    START,
    at,
    counts,
    event,
    give,
    make_subscriber,
    send,
)

FEED = "/api/v1/quota/exhausted"
NUMBER, OTHER = "+8613900000001", "+8613900000009"


def feed() -> list[tuple[str, bool, str]]:
    rows = BlockChange.objects.order_by("id")
    return list(rows.values_list("msisdn", "blocked", "reason"))


def blocked(subscriber: Subscriber) -> str:
    return ChargingProfile.objects.get(pk=subscriber.pk).blocked


def step(name: str, subscriber: Subscriber) -> None:
    getattr(lifecycle, name)(subscriber_id=subscriber.pk, actor="c", reason="r", now=NOON)


# --- at once


def test_the_last_token_blocks_in_the_answer_and_in_the_feed(
    node: Node, subscriber: Subscriber
) -> None:
    assert send(node, event("e1", 999)).exhausted == []
    assert feed() == []
    assert send(node, event("e2", 1)).exhausted == [(NUMBER, "quota_exhausted")]
    assert feed() == [(NUMBER, True, "quota_exhausted")]
    assert send(node, event("e3", 1)).exhausted == [(NUMBER, "quota_exhausted")]
    # The answer that told of it first may have been lost.
    assert send(node, event("e2", 1)).exhausted == [(NUMBER, "quota_exhausted")]
    assert len(feed()) == 1  # told again to who asks, but it is no change


def test_a_grant_unblocks_at_once(node: Node, subscriber: Subscriber) -> None:
    send(node, event("e1", 1000))
    give(subscriber, 1, kind="pack", now=NOON)
    assert feed() == [(NUMBER, True, "quota_exhausted"), (NUMBER, False, "")]
    assert blocked(subscriber) == ""


def test_a_grant_for_later_does_not_unblock_yet(node: Node, subscriber: Subscriber) -> None:
    send(node, event("e1", 1000))
    give(subscriber, 1, start=END, end=END + HOUR, now=NOON)
    assert blocked(subscriber) == "quota_exhausted"
    enforcement.sweep(now=END - INSTANT)
    assert blocked(subscriber) == "quota_exhausted"
    enforcement.sweep(now=END)
    assert blocked(subscriber) == ""


def test_an_adjustment_blocks_and_unblocks(month: Bucket, subscriber: Subscriber) -> None:
    for mt, verdict in ((-1_000_000, "quota_exhausted"), (1, "")):
        movements.adjust(
            bucket_id=month.pk, amount_mt=mt, key=f"k{mt}", actor="c", reason="r", now=NOON
        )
        assert blocked(subscriber) == verdict


def test_suspend_resume_and_terminate_reach_the_feed(subscriber: Subscriber) -> None:
    for name in ("suspend", "resume", "terminate"):
        step(name, subscriber)
    assert feed() == [
        (NUMBER, True, "suspended"),
        (NUMBER, False, ""),
        (NUMBER, True, "terminated"),
    ]


def test_resumed_without_tokens_is_exhausted(node: Node, subscriber: Subscriber) -> None:
    step("suspend", subscriber)
    send(node, event("e1", 1000))
    step("resume", subscriber)
    assert blocked(subscriber) == "quota_exhausted"


def test_a_grant_does_not_unblock_the_suspended(subscriber: Subscriber) -> None:
    step("suspend", subscriber)
    give(subscriber, 1, kind="pack", now=NOON)
    assert blocked(subscriber) == "suspended"


def test_pay_as_you_go_is_blocked_at_its_cap(node: Node, bare: Subscriber) -> None:
    profiles.set_terms(
        subscriber_id=bare.pk, beyond="payg", payg_fen_per_million=400, payg_cap_mt=5000, now=NOON
    )
    assert send(node, event("e1", 4)).exhausted == []
    assert send(node, event("e2", 1)).exhausted == [(NUMBER, "quota_exhausted")]
    enforcement.sweep(now=END - INSTANT)
    assert blocked(bare) == "quota_exhausted"
    enforcement.sweep(now=END)  # the next cycle has a cap of its own
    assert blocked(bare) == ""


def test_late_usage_of_an_ended_month_blocks_nobody_with_tokens(
    node: Node, subscriber: Subscriber
) -> None:
    give(subscriber, 10, start=END, end=at("2027-01-01 00:00"))
    result = send(node, event("e1", 1000, at=END - SECOND), now=END + SECOND)
    assert result.exhausted == []
    assert blocked(subscriber) == ""


def test_a_number_given_to_another_is_not_blocked_for_its_past(
    node: Node, account: Account, subscriber: Subscriber
) -> None:
    step("terminate", subscriber)
    heir = make_subscriber_at(account, NUMBER)
    give(heir, 10, now=NOON)
    assert feed()[-1] == (NUMBER, False, "")
    assert (blocked(heir), blocked(subscriber)) == ("", "terminated")


def make_subscriber_at(account: Account, msisdn: str) -> Subscriber:
    created = lifecycle.create_subscriber(
        account_id=account.pk, msisdn=msisdn, actor="c", reason="r", now=NOON
    )
    return lifecycle.activate(subscriber_id=created.pk, actor="c", reason="r", now=NOON)


def test_a_block_follows_its_subscriber_to_another_number(subscriber: Subscriber) -> None:
    step("suspend", subscriber)
    lifecycle.change_number(
        subscriber_id=subscriber.pk, msisdn=OTHER, actor="c", reason="r", now=NOON
    )
    newest = {msisdn: (is_blocked, reason) for msisdn, is_blocked, reason in feed()}
    assert newest == {NUMBER: (False, ""), OTHER: (True, "suspended")}
    step("resume", subscriber)
    assert feed()[-1] == (OTHER, False, "")


# --- the sweep


def test_the_sweep_blocks_when_the_last_bucket_ends(
    subscriber: Subscriber, neighbour: Subscriber
) -> None:
    give(neighbour, 1, start=END, end=END + HOUR)
    assert enforcement.sweep(now=END - INSTANT) == 0
    assert enforcement.sweep(now=END) == 1
    assert (blocked(subscriber), blocked(neighbour)) == ("quota_exhausted", "")
    assert enforcement.sweep(now=END) == 0


def test_the_sweep_opens_when_a_bucket_begins(bare: Subscriber) -> None:
    enforcement.sweep(now=START - HOUR)
    give(bare, 1, start=START, end=END, now=START - HOUR)
    assert blocked(bare) == "quota_exhausted"
    enforcement.sweep(now=START)
    assert blocked(bare) == ""
    assert feed() == [(NUMBER, True, "quota_exhausted"), (NUMBER, False, "")]


def test_the_sweep_is_bounded_and_goes_on(account: Account) -> None:
    for number in range(5):
        make_subscriber(account, f"+861390000010{number}")
    assert [enforcement.sweep(now=NOON, limit=2) for _round in range(4)] == [2, 2, 1, 0]


@pytest.mark.usefixtures("clock_at_noon")
def test_a_run_of_the_sweep_looks_at_all_whom_time_has_changed(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many a step takes: when a month begins, they are all who had used theirs up."""
    people = [make_subscriber(account, f"+8613900000{number}") for number in range(200, 205)]
    monkeypatch.setattr(tasks, "SWEPT", 2)
    tasks.sweep_blocks()
    assert {blocked(person) for person in people} == {"quota_exhausted"}


# --- notices


def test_each_share_is_told_once_a_cycle(node: Node, subscriber: Subscriber) -> None:
    told = []
    for number, tokens in enumerate((499, 1, 290, 9, 1, 200, 5)):
        send(node, event(f"e{number}", tokens))
        told.append(sorted(Notice.objects.values_list("percent", flat=True)))
    assert told == [[], [50], [50], [50], [50, 80], [50, 80, 100], [50, 80, 100]]
    messages = OutboxMessage.objects.filter(subscriber_id=subscriber.pk).order_by("id")
    assert [one.template for one in messages] == ["used_50", "used_80", "used_100"]
    assert {one.recipient for one in messages} == {NUMBER}
    assert len({one.body for one in messages}) == 3


@pytest.mark.parametrize(
    ("language", "word"), [("en", "You have used 50%"), ("zh-hans", "50%"), ("xx", "50%")]
)
def test_a_notice_is_in_the_language_of_who_reads_it(
    node: Node, subscriber: Subscriber, language: str, word: str
) -> None:
    Subscriber.objects.filter(pk=subscriber.pk).update(language=language)
    send(node, event("e1", 500))
    text = OutboxMessage.objects.get(subscriber_id=subscriber.pk).body
    assert word in text
    assert text.isascii() == (language == "en")  # what we do not speak is told in Chinese


def test_a_leap_past_all_shares_tells_each(node: Node, subscriber: Subscriber) -> None:
    send(node, event("e1", 1000))
    assert sorted(Notice.objects.values_list("percent", flat=True)) == [50, 80, 100]
    give(subscriber, 10, kind="pack", now=NOON)
    send(node, event("e2", 10))
    assert OutboxMessage.objects.count() == 3  # the same shares in the same cycle


def test_a_process_whose_clock_is_behind_at_the_turn_of_a_month_tells_nothing_twice(
    node: Node, subscriber: Subscriber
) -> None:
    give(subscriber, 100, start=END, end=at("2027-01-01 00:00"))
    send(node, event("e1", 600))
    send(node, event("e2", 60, at=END + SECOND), now=END + SECOND)
    result = send(node, event("e3", 1, at=END - SECOND), now=END - SECOND)
    assert counts(result) == (1, 0, 0, 0)
    assert sorted(Notice.objects.values_list("percent", flat=True)) == [50, 50]
    assert OutboxMessage.objects.count() == 2


def test_the_next_cycle_tells_anew(node: Node, subscriber: Subscriber) -> None:
    give(subscriber, 100, start=END, end=at("2027-01-01 00:00"))
    send(node, event("e1", 600))
    send(node, event("e2", 60, at=END + SECOND), now=END + SECOND)
    cycles = Notice.objects.order_by("cycle").values_list("cycle", "percent")
    assert [(f"{cycle:%Y-%m}", percent) for cycle, percent in cycles] == [
        ("2026-11", 50),
        ("2026-12", 50),
    ]


# --- the feed over HTTP


@pytest.mark.usefixtures("clock_at_noon")
def test_the_feed_pages_by_cursor(
    collector: APIClient, subscriber: Subscriber, neighbour: Subscriber
) -> None:
    for one in (subscriber, neighbour):
        step("suspend", one)
    step("resume", subscriber)
    first = collector.get(FEED, {"cursor": 0, "limit": 2}).json()
    assert [(one["subject"], one["blocked"], one["reason"]) for one in first["changes"]] == [
        (NUMBER, True, "suspended"),
        ("+8613900000002", True, "suspended"),
    ]
    second = collector.get(FEED, {"cursor": first["cursor"]}).json()
    assert [(one["subject"], one["blocked"]) for one in second["changes"]] == [(NUMBER, False)]
    last = collector.get(FEED, {"cursor": second["cursor"]}).json()
    assert last == {"changes": [], "cursor": second["cursor"]}


@pytest.mark.parametrize("cursor", ["-1", "x", str(2**63), "1.5"])
@pytest.mark.usefixtures("clock_at_noon")
def test_a_cursor_that_is_none_is_refused(collector: APIClient, cursor: str) -> None:
    assert collector.get(FEED, {"cursor": cursor}).status_code == 400


def test_the_feed_is_one_read_of_its_primary_key(subscriber: Subscriber) -> None:
    step("suspend", subscriber)
    with CaptureQueriesContext(connection) as queries:
        assert len(enforcement.changes_after(cursor=0).changes) == 1
    assert len(queries) == 1


def test_blocks_survive_a_sweep_that_has_nothing_to_mend(
    node: Node, subscriber: Subscriber
) -> None:
    send(node, event("e1", 1000))
    assert enforcement.sweep(now=NOON + timedelta(minutes=1)) == 0
    assert len(feed()) == 1
