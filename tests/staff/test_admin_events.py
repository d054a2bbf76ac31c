"""Events are found by day, number, source and batch, and say what each token was charged to."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts import lifecycle
from config import admin as frame
from usage import ingest
from usage.models import LedgerEntry, UsageBatch, UsageEvent

from .conftest import Carrier, event
from .instants import NOON

EVENTS = "admin:usage_usageevent_changelist"


def found(client: Client, **query: str) -> list[str]:
    page = client.get(reverse(EVENTS), query)
    return sorted(row.event_id for row in page.context["cl"].result_list)


def test_the_newest_day_with_usage_opens_first(carrier: Carrier, auditor: Client) -> None:
    page = auditor.get(reverse(EVENTS))
    assert page["Location"] == f"{reverse(EVENTS)}?day=2026-10-05"


def test_a_day_ends_at_midnight_in_shanghai(carrier: Carrier, auditor: Client) -> None:
    late = event(7).replace(b"2026-10-05T03:30:00+00:00", b"2026-10-04T16:00:00+00:00")
    early = event(8).replace(b"2026-10-05T03:30:00+00:00", b"2026-10-04T15:59:59.999999+00:00")
    ingest.ingest(node=carrier.node, events=[late, early], now=NOON)
    assert found(auditor, day="2026-10-05") == ["req-1", "req-2", "req-7"]
    assert found(auditor, day="2026-10-04") == ["req-8"]


def test_events_are_found_by_number_source_id_and_batch(carrier: Carrier, auditor: Client) -> None:
    day = "2026-10-05"
    batch = UsageBatch.objects.get(kind="events")
    assert found(auditor, day=day, q="139 0000 0001") == ["req-1", "req-2"]
    assert found(auditor, day=day, q="13900000002") == []
    assert found(auditor, day=day, q="req-2") == ["req-2"]
    assert found(auditor, day=day, q="wuxi-1/req-1") == ["req-1"]
    assert found(auditor, day=day, q="wuxi-1") == ["req-1", "req-2"]
    assert found(auditor, day=day, batch=str(batch.pk)) == ["req-1", "req-2"]
    assert found(auditor, day=day, batch=str(batch.pk + 1)) == []


def test_a_former_number_still_finds_its_subscriber_s_events(
    carrier: Carrier, auditor: Client
) -> None:
    lifecycle.change_number(
        subscriber_id=carrier.subscriber.pk,
        msisdn="13900000088",
        actor="demo",
        reason="wish",
        now=NOON,
    )
    assert found(auditor, day="2026-10-05", q="13900000001") == ["req-1", "req-2"]
    assert found(auditor, day="2026-10-05", q="13900000088") == ["req-1", "req-2"]


def test_an_event_says_what_its_tokens_were_charged_to(carrier: Carrier, auditor: Client) -> None:
    second = UsageEvent.objects.get(event_id="req-2")
    address = reverse("admin:usage_usageevent_change", args=[second.pk])
    page = auditor.get(address, headers={"accept-language": "en"}).text
    bucket = LedgerEntry.objects.get(kind="debit", event_id=second.pk).bucket_id
    assert f'">bucket {bucket}</a></div><div>100: priced overage</div>' in page
    assert "<div>200: " in page


def test_staff_read_times_in_shanghai(carrier: Carrier, auditor: Client) -> None:
    page = auditor.get(reverse(EVENTS), {"day": "2026-10-05"}).text
    assert "2026-10-05 11:30:00" in page


def test_the_ledger_opens_on_the_newest_debits_and_finds_a_whole_bucket(
    carrier: Carrier, auditor: Client
) -> None:
    address = reverse("admin:usage_ledgerentry_changelist")
    newest = auditor.get(address).context["cl"].result_list
    assert [row.kind for row in newest] == ["refund", "debit", "debit"]
    for term in ("13900000001", str(newest[0].bucket_id)):
        rows = auditor.get(address, {"q": term}).context["cl"].result_list
        assert [row.kind for row in rows] == ["refund", "debit", "debit", "grant"]


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(frame.BoundedPaginator, "limit", 2)
    yield


def test_a_count_stops_at_its_limit_and_says_so(
    carrier: Carrier, auditor: Client, low_limit: Any
) -> None:
    page = auditor.get(reverse(EVENTS), {"day": "2026-10-05"}, headers={"accept-language": "en"})
    assert page.context["cl"].result_count == 2
    assert "or more: narrow the filter" in page.text
