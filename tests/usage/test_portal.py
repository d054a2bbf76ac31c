"""The home page: the balance to the token, one's own and nobody else's."""

import re
from collections.abc import Callable, Iterable

import pytest
import time_machine
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from accounts import lifecycle
from accounts.models import Subscriber
from tests.usage.conftest import NOON, at, event, give, send
from usage.batches import BatchResult
from usage.models import Node

Report = Callable[..., BatchResult]


@pytest.fixture
def portal(subscriber: Subscriber, clock_at_noon: Iterable[time_machine.Traveller]) -> Client:
    return client_of(subscriber)


@pytest.fixture
def report(node: Node) -> Report:
    return lambda *events: send(node, *events)


def client_of(subscriber: Subscriber) -> Client:
    assert subscriber.user is not None
    client = Client()
    client.force_login(subscriber.user)
    return client


def read(client: Client, path: str = "/", language: str = "en") -> str:
    answer = client.get(path, headers={"accept-language": language})
    assert answer.status_code == 200
    return answer.content.decode()


def balance_mt(page: str) -> int:
    return int(re.findall(r'id="balance" data-mt="(\d+)"', page)[0])


def test_the_balance_goes_down_by_what_was_used(portal: Client, report: Report) -> None:
    assert balance_mt(read(portal)) == 1_000_000
    report(event("a", 250))
    page = read(portal)
    assert balance_mt(page) == 750_000
    assert 'id="used-today">250<' in page


def test_a_bucket_says_at_which_hours_it_pays(portal: Client, subscriber: Subscriber) -> None:
    give(subscriber, 5, minute_from=1320, minute_until=480)
    assert "not now, at 22:00–08:00" in read(portal)
    give(subscriber, 5, minute_from=720, minute_until=1440)
    assert "pays only at 12:00–24:00" in read(portal)
    assert "00:00–24:00" not in read(portal)


def test_the_neighbour_sees_nothing_of_it(
    portal: Client, report: Report, neighbour: Subscriber
) -> None:
    report(event("a", 250))
    page = read(client_of(neighbour))
    assert balance_mt(page) == 1_000_000
    assert 'id="used-today">0<' in page


def test_the_page_is_chinese_unless_english_is_asked_for(portal: Client) -> None:
    assert "剩余词元" in portal.get("/").content.decode()
    assert "Tokens left" in read(portal, language="en")


def test_the_chart_turns_to_a_past_month_and_to_the_hours_of_a_day(
    portal: Client, report: Report
) -> None:
    report(event("a", 40, at=at("2026-10-03 14:30")), event("b", 2, at=at("2026-10-31 23:59")))
    assert "42 standard tokens" in read(portal, "/?month=2026-10")
    day = read(portal, "/?day=2026-10-03")
    assert "14:00–14:59: 40" in day
    assert "Nothing was used" in read(portal, "/?day=2026-11-01")


@pytest.mark.parametrize(
    "query", ["month=2026-12", "month=2025-10", "month=x", "day=2026-11-25", "day=2026-13-01"]
)
def test_months_out_of_reach_and_nonsense_are_not_found(portal: Client, query: str) -> None:
    assert portal.get(f"/?{query}").status_code == 404


def test_an_exhausted_subscriber_is_told_what_to_do(portal: Client, report: Report) -> None:
    report(event("a", 1_001))
    page = read(portal)
    assert "Your tokens are used up" in page
    assert balance_mt(page) == 0


def test_a_suspended_subscriber_sees_that_and_why(portal: Client, subscriber: Subscriber) -> None:
    lifecycle.suspend(subscriber_id=subscriber.pk, actor="clerk", reason="late", now=NOON)
    assert "This number is suspended" in read(portal)


def test_buckets_stand_in_the_order_in_which_they_are_used(
    portal: Client, subscriber: Subscriber
) -> None:
    give(subscriber, 5, kind="promotion")
    give(subscriber, 7, kind="rollover")
    rows = re.findall(r'<span class="num">(\d[\d,]*)</span></div>\n\s*<progress', read(portal))
    assert rows == ["7", "1,000", "5"]


def test_looking_writes_nothing_and_costs_a_fixed_number_of_queries(
    portal: Client, report: Report, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    report(*[event(str(number), 1) for number in range(50)])
    with django_assert_max_num_queries(16) as captured:
        read(portal)
    writes = [
        query["sql"]
        for query in captured.captured_queries
        if re.match(r"\s*(INSERT|UPDATE|DELETE)", query["sql"])
    ]
    assert writes == []


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs_inline(portal: Client) -> None:
    answer = portal.get("/")
    page = answer.content.decode()
    assert "default-src 'none'" in answer["Content-Security-Policy"]
    assert re.findall(r'(?:src|href)="(?:https?:)?//', page) == []
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page) == []
    assert "no-store" in answer["Cache-Control"]


def test_every_request_is_listed_once_over_the_pages(portal: Client, report: Report) -> None:
    report(*[event(f"e{number}", number) for number in range(1, 121)])
    seen: list[str] = []
    path = "/requests/"
    while path:
        page = read(portal, path)
        seen += re.findall(r'<td class="last num">([\d,.]+)<', page)
        older = re.findall(r'href="(\?before=[^"]+)"', page)
        path = f"/requests/{older[0]}" if older else ""
    assert sorted(map(int, seen)) == list(range(1, 121))


@pytest.mark.parametrize("before", ["x", "2026-11-01~1", "2026-11-01T00:00:00+08:00~x"])
def test_a_page_that_does_not_exist_is_not_found(portal: Client, before: str) -> None:
    assert portal.get("/requests/", {"before": before}).status_code == 404
