"""Small reports share a transaction: each counts once, gets its own answer, and fails alone."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import msgspec
import pytest
from django.db import connection, transaction

from accounts import keys
from accounts.models import Account, Subscriber
from usage import proof, receiving
from usage.arriving import Delivery
from usage.batches import BatchResult, Tally
from usage.gathering import Gathering, Outcome, TooBusy
from usage.ingest import Portion, portion_of
from usage.models import Bucket, Node, UsageBatch, UsageEvent
from usage.receiving import Report

from .conftest import NOON, event, give, left, make_subscriber
from .short_way import post
from .test_concurrency import at_once, closing
from .test_set_aside import LOCK_PROFILES, until_it_waits

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clock_at_noon")]

OK, UNAVAILABLE, PASSED_ON = 200, 503, 0
MOST = 2000  # events in a transaction
LARGE = receiving.SMALL_EVENTS + 1


def body(*events: dict[str, Any]) -> bytes:
    return json.dumps(list(events)).encode()


@pytest.fixture
def token(node_and_token: tuple[Node, str], subscriber: Subscriber) -> str:
    return node_and_token[1]


def transactions() -> int:
    """How many transactions wrote the batches that are there."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(DISTINCT xmin::text) FROM usage_usagebatch")
        return int(cursor.fetchone()[0])


@pytest.fixture
def held_up() -> Iterator[threading.Event]:
    """Someone holds the subscribers' profiles, so that what comes first waits and the rest
    gathers behind it; set the event to let go."""
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT 1 FROM usage_chargingprofile FOR NO KEY UPDATE")
            held.set()
            let_go.wait(timeout=20)
            cursor.execute("COMMIT")
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(timeout=10)
    yield let_go
    let_go.set()
    holder.join()


def gathered(reports: Sequence[tuple[str, bytes]], let_go: threading.Event) -> list[Any]:
    """Post these at once while the first waits for a lock, and let go when all are there."""
    timer = threading.Timer(1.0, let_go.set)
    timer.start()
    answers = at_once(len(reports), lambda number: post(*reports[number]))
    timer.join()
    return answers


def test_sixty_four_at_once_are_counted_in_few_transactions_and_answered_each(
    token: str, month: Bucket, held_up: threading.Event
) -> None:
    strange = event("strange", 1, subject="+8613911111111")
    bodies = [body(event(f"e{number}", number)) for number in range(63)] + [body(strange)]
    answers = gathered([(token, one) for one in bodies], held_up)
    shown = [json.loads(content) for _status, content in answers]
    assert {status for status, _content in answers} == {OK}
    assert [one["accepted"] for one in shown] == [1] * 63 + [0]
    assert [one["rejected"] for one in shown] == [0] * 63 + [1]
    assert shown[-1]["errors"][0]["id"] == "strange"
    assert len({one["batch"] for one in shown}) == 64
    for number, one in enumerate(shown[:63]):
        counted = UsageEvent.objects.get(event_id=f"e{number}")
        assert (counted.batch_id, counted.mt) == (one["batch"], number * 1000)
    assert 2 <= transactions() <= 4
    assert left(month) == max(0, 1_000_000 - sum(range(63)) * 1000)
    assert proof.verify() == []


def test_the_same_event_in_one_group_counts_once(
    token: str, month: Bucket, held_up: threading.Event
) -> None:
    same = body(event("e1", 10))
    answers = gathered([(token, same)] * 8, held_up)
    outcomes = Counter(
        (one["accepted"], one["duplicate"])
        for one in (json.loads(content) for _status, content in answers)
    )
    assert outcomes == {(1, 0): 1, (0, 1): 7}
    assert left(month) == 990_000
    assert proof.verify() == []


def test_a_bad_key_and_a_body_that_does_not_read_fail_alone(
    token: str, node: Node, month: Bucket, held_up: threading.Event
) -> None:
    _, old = keys.issue_key(kind="node", name="old", now=NOON)  # of no node
    reports = [(token, body(event(f"e{number}", 1))) for number in range(6)]
    reports += [("ak0.nonsense", body(event("x", 1))), (f"{token}x", body(event("y", 1)))]
    reports += [(old, body(event("z", 1))), (token, b"{broken")]
    answers = gathered(reports, held_up)
    assert [status for status, _content in answers] == [OK] * 6 + [PASSED_ON] * 4
    assert UsageEvent.objects.count() == UsageBatch.objects.count() == 6


def test_a_key_is_refused_from_its_revocation_on(token: str, node: Node) -> None:
    assert post(token, body(event("e1", 1)))[0] == OK
    keys.revoke(key_id=node.node_keys.get().api_key_id, now=NOON)
    assert post(token, body(event("e2", 1)))[0] == PASSED_ON
    assert UsageEvent.objects.count() == 1


def test_the_use_of_a_key_is_noted(token: str, node: Node) -> None:
    post(token, body(event("e1", 1)))
    assert node.node_keys.get().api_key.last_used_at == NOON


@pytest.fixture
def poison() -> Iterator[str]:
    """The id of an event that the database refuses, as a constraint of tomorrow may."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'poison' USING ERRCODE = '22000'; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON usage_usageevent FOR EACH ROW "
            "WHEN (NEW.event_id = 'poison') EXECUTE FUNCTION refuse()"
        )
    yield "poison"
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER refuse ON usage_usageevent")
        cursor.execute("DROP FUNCTION refuse()")


def test_what_the_database_refuses_fails_alone(
    token: str, month: Bucket, held_up: threading.Event, poison: str
) -> None:
    reports = [(token, body(event(f"e{number}", 1))) for number in range(6)]
    answers = gathered([*reports, (token, body(event(poison, 1)))], held_up)
    # The view, to which it is passed on, will find the same error and say 500.
    assert [status for status, _content in answers] == [OK] * 6 + [PASSED_ON]
    assert left(month) == 994_000
    assert proof.verify() == []


def portion(node: Node, *events: dict[str, Any], sequence: int) -> Portion:
    raw = [json.dumps(one).encode() for one in events]
    return portion_of(Delivery(node=node, events=raw, sequence=sequence), now=NOON)


def large(name: str, *more: dict[str, Any]) -> bytes:
    return body(*(event(f"{name}-{number}", 1) for number in range(LARGE)), *more)


def test_large_reports_share_transactions_and_are_answered_each(
    token: str, month: Bucket, held_up: threading.Event, poison: str
) -> None:
    reports = [(token, large(f"r{number}")) for number in range(7)]
    reports.append((token, large("p", event(poison, 1))))
    answers = gathered(reports, held_up)
    assert [status for status, _content in answers] == [OK] * 7 + [PASSED_ON]
    assert [json.loads(content)["accepted"] for _status, content in answers[:7]] == [LARGE] * 7
    assert {one.accepted for one in UsageBatch.objects.all()} == {LARGE}
    assert left(month) == 1_000_000 - 7 * LARGE * 1000
    assert proof.verify() == []


def test_a_large_report_lets_others_go_before_what_is_held(
    token: str, month: Bucket, account: Account
) -> None:
    other = make_subscriber(account, "+8613900000077")
    give(other, 1000)

    def report(name: str, *more: dict[str, Any]) -> tuple[int, Any]:
        own = [event(f"{name}{number}", 1, subject=str(other.msisdn)) for number in range(LARGE)]
        status, content = in_thread(lambda: post(token, body(*own, *more), query="sequence=7"))
        return status, json.loads(content)["accepted"]

    with ThreadPoolExecutor(1) as pool, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(LOCK_PROFILES, [[month.subscriber_id]])
        waiting = pool.submit(report, "a", event("held", 1))
        until_it_waits(waiting, cursor)
        assert UsageEvent.objects.count() == LARGE
        # It waits by itself: another one's report is counted meanwhile.
        assert report("b") == (OK, LARGE)
    assert waiting.result(timeout=20) == (OK, LARGE + 1)
    rows = UsageBatch.objects.order_by("id").values_list("sequence", "accepted")
    # What is counted last has the number of the sender, since then the report is complete.
    assert [*rows] == [(None, LARGE), (7, 1), (7, LARGE)]
    assert proof.verify() == []


def test_a_report_that_others_hold_as_a_whole_leaves_no_empty_batch(
    token: str, node: Node, month: Bucket, account: Account
) -> None:
    """Beside another one, so that most in the transaction are free."""
    people = [make_subscriber(account, f"+861390000080{number}") for number in range(3)]
    own = [event(f"o{number}", 1, subject=str(one.msisdn)) for number, one in enumerate(people)]
    held = portion(node, *(event(f"h{number}", 1) for number in range(LARGE)), sequence=5)
    with ThreadPoolExecutor(1) as pool, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(LOCK_PROFILES, [[month.subscriber_id]])
        both = [held, portion(node, *own, sequence=6)]
        counting = pool.submit(closing(lambda: receiving.count_large(both, NOON)))
        left, counted = counting.result(timeout=20)
    assert isinstance(left, Portion)
    assert isinstance(counted, Portion)
    assert (left.result, len(left.events), counted.counted().tally.accepted) == (None, LARGE, 3)
    [rest] = receiving.count_rest([left], NOON)
    assert isinstance(rest, Portion)
    assert (rest.events, rest.counted().tally.accepted) == ([], LARGE)
    batches = UsageBatch.objects.order_by("sequence").values_list("sequence", "accepted")
    assert [*batches] == [(5, LARGE), (6, 3)]


def test_what_was_tried_before_is_waited_for_by_nobody(
    token: str, node: Node, month: Bucket, account: Account
) -> None:
    """Neither by itself nor by those who come with it; who is free goes along."""
    people = [make_subscriber(account, f"+861390000080{number}") for number in range(4)]
    numbers = [str(one.msisdn) for one in people]
    fresh = portion(node, *(event(f"h{who}", 1, subject=who) for who in numbers), sequence=5)
    tried = msgspec.structs.replace(fresh, tried=True)
    own = portion(node, event("o", 1), sequence=6)

    @closing
    def count(*portions: Portion) -> list[tuple[int, int]]:
        told = [one for one in receiving.count_large(portions, NOON) if isinstance(one, Portion)]
        return [(one.result.tally.accepted if one.result else 0, len(one.events)) for one in told]

    with ThreadPoolExecutor(1) as pool, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(LOCK_PROFILES, [[one.pk for one in people[1:]]])

        def counted(*portions: Portion) -> list[tuple[int, int]]:
            return pool.submit(count, *portions).result(timeout=2)

        assert counted(tried, own) == [(0, 4), (1, 0)]  # ours alone, so that it waits for few
        assert counted(tried) == [(1, 3)]
        waiting = pool.submit(count, fresh)
        until_it_waits(waiting, cursor)
    assert waiting.result(timeout=20) == [(3, 0)]
    assert UsageEvent.objects.count() == 5


def test_what_was_held_goes_with_the_next_transaction_once_it_is_free(
    token: str, node: Node, month: Bucket, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_subscriber(account, "+8613900000077")
    own = [event(f"o{number}", 1, subject=str(other.msisdn)) for number in range(LARGE)]
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(LOCK_PROFILES, [[month.subscriber_id]])
            held.set()
            assert let_go.wait(20)

    honest = receiving._take_large

    def take(item: Portion) -> Portion:
        told = honest(item)
        let_go.set()
        holding.result(timeout=20)
        return told

    def beside(_item: Portion) -> Portion:
        raise AssertionError("counted beside the queue")

    monkeypatch.setattr(receiving, "_take_large", take)
    monkeypatch.setattr(receiving, "_take_rest", beside)
    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(closing(hold))
        assert held.wait(20)
        result = receiving.take_large(portion(node, *own, event("held", 1), sequence=5))
    assert result.tally.accepted == LARGE + 1
    assert UsageBatch.objects.count() == 2


def test_without_the_database_all_are_told_to_send_again(
    token: str, month: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = [body(event(f"e{number}", 1)) for number in range(4)]
    with monkeypatch.context() as away:
        away.setitem(connection.settings_dict, "HOST", "/nowhere")
        answers = [in_thread(lambda one=one: post(token, one)) for one in bodies]
    assert [status for status, _content in answers] == [UNAVAILABLE] * 4
    assert json.loads(answers[0][1])["code"] == "unavailable"
    again = at_once(4, lambda number: post(token, bodies[number]))
    assert [json.loads(content)["accepted"] for _status, content in again] == [1] * 4
    assert left(month) == 996_000


def in_thread(act: Any) -> Any:
    """What `act` returns in a thread that has no connection yet."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(closing(act)).result(timeout=30)


# --- the queue by itself


class Work:
    """Counts nothing, slowly: it goes on when told."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.go_on = threading.Semaphore(0)

    def __call__(self, reports: Sequence[Report], now: datetime) -> list[Outcome[BatchResult]]:
        self.groups.append(len(reports))
        self.go_on.acquire(timeout=10)
        return [BatchResult(int(report.token), Tally()) for report in reports]


def start(
    queue: Gathering[Report, BatchResult], number: int, events: int = 1
) -> "tuple[threading.Thread, list[Any]]":
    answer: list[Any] = []

    def take() -> None:
        try:
            answer.append(queue.take(Report(str(number), [b""] * events)).batch_id)
        except TooBusy as busy:
            answer.append(busy)

    thread = threading.Thread(target=take)
    thread.start()
    time.sleep(0.05)
    return thread, answer


def test_those_who_come_meanwhile_go_together_and_each_gets_its_own() -> None:
    work = Work()
    queue = Gathering(work, most_events=MOST)
    started = [start(queue, number) for number in range(5)]
    assert work.groups == [1]
    work.go_on.release(2)
    for thread, _answer in started:
        thread.join(timeout=5)
    assert work.groups == [1, 4]
    assert [answer for _thread, answer in started] == [[0], [1], [2], [3], [4]]


def test_a_group_holds_no_more_events_than_a_transaction_should() -> None:
    work = Work()
    queue = Gathering(work, most_events=MOST)
    started = [start(queue, number, MOST // 2) for number in range(4)]
    work.go_on.release(4)
    for thread, _answer in started:
        thread.join(timeout=5)
    assert work.groups == [1, 2, 1]


def test_who_waits_too_long_is_told_and_forgotten() -> None:
    work = Work()
    queue = Gathering(work, most_events=MOST, wait_seconds=1)
    leader, led = start(queue, 1)
    waiting, waited = start(queue, 2)
    waiting.join(timeout=5)
    assert isinstance(waited[0], TooBusy)
    work.go_on.release(1)
    leader.join(timeout=5)
    assert led == [1]
    work.go_on.release(1)
    last, answer = start(queue, 3)
    last.join(timeout=5)
    assert (answer, work.groups) == ([3], [1, 1])


def test_an_error_of_the_group_reaches_everyone_and_the_queue_goes_on() -> None:
    def fail(_reports: Sequence[Report], _now: datetime) -> list[Outcome[BatchResult]]:
        raise TooBusy("no")

    queue = Gathering(fail, most_events=MOST)
    for _time in range(2):
        with pytest.raises(TooBusy):
            queue.take(Report("1", []))
