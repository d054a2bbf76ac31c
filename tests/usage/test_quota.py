"""Quota sessions over HTTP: what is granted, held, charged and given back."""

from typing import Any

import pytest
from django.urls import resolve
from rest_framework.test import APIClient

from accounts import lifecycle
from accounts.keys import issue_key, revoke
from accounts.models import Subscriber
from usage import ledger, proof, supervising
from usage.models import BlockChange, Bucket, Node, QuotaSession, UsageBatch, UsageEvent

from .conftest import BORN, NOON, SECOND, event, give, send
from .quota_calls import SUBJECT, amounts, create, release, terms, update
from .test_charging import payg

pytestmark = pytest.mark.usefixtures("clock_at_noon", "way")


def test_a_create_holds_what_is_asked_and_answers_as_the_contract_says(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    answer = create(collector, requested=400)
    assert answer.status_code == 201
    body = answer.json()
    assert body.pop("ref").startswith("qs_")
    assert body == {
        "sequence": 0,
        "result": "SUCCESS",
        "granted": 400,
        "threshold": 320,
        "validity_seconds": 300,
        "final": None,
    }
    assert amounts(month) == (1000, 400)
    assert proof.verify() == []


@pytest.mark.parametrize(("granted", "threshold"), [(1, 1), (2, 1), (4, 3), (5, 4), (1000, 800)])
def test_the_threshold_is_four_fifths_and_never_nothing(
    collector: APIClient, bare: Subscriber, granted: int, threshold: int
) -> None:
    """Who asks again as soon as the threshold is reached would ask for ever at zero."""
    give(bare, 2000)
    assert create(collector, requested=granted).json()["threshold"] == threshold


def test_without_an_amount_the_server_decides(
    collector: APIClient, bare: Subscriber, settings: Any
) -> None:
    settings.QUOTA_SLICE_TOKENS = 600
    give(bare, 1000)
    assert create(collector).json()["granted"] == 600
    second = create(collector, "s2").json()
    assert (second["granted"], second["threshold"]) == (400, 400)
    assert second["final"] is not None


def test_what_another_session_holds_is_not_granted_twice(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    assert create(collector, "s1", requested=700).json()["granted"] == 700
    partial = create(collector, "s2", requested=700).json()
    assert (partial["result"], partial["granted"]) == ("SUCCESS", 300)
    refused = create(collector, "s3", requested=700).json()
    assert (refused["result"], refused["granted"]) == ("QUOTA_LIMIT_REACHED", 0)
    assert refused["final"]["action"] == "REDIRECT"
    assert amounts(month) == (1000, 1000)
    assert QuotaSession.objects.get(session="s3").state == "idle"


def test_a_new_grant_replaces_the_held_one(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    ref = create(collector, requested=400).json()["ref"]
    for sequence, requested in enumerate((900, 100, 250), start=1):
        body = update(collector, ref, sequence, requested=requested).json()
        assert body["granted"] == requested
        assert amounts(month) == (1000, requested)
    body = release(collector, ref, 4).json()
    assert (body["result"], body["granted"], body["final"]) == ("SUCCESS", 0, None)
    assert amounts(month) == (1000, 0)


def test_an_overtaken_update_is_charged_and_leaves_the_newer_grant(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    """A node that got no answer in time may go on to the next sequence, and both arrive."""
    ref = create(collector, requested=400).json()["ref"]
    newer = update(collector, ref, 2, event("e2", 100), requested=500).json()
    assert newer["granted"] == 500
    overtaken = update(collector, ref, 1, event("e1", 50), requested=30).json()
    assert (overtaken["sequence"], overtaken["accepted"]) == (1, 1)
    assert (overtaken["result"], overtaken["granted"]) == ("SUCCESS", 500)
    assert amounts(month) == (850, 500)
    # What it charges may come from what the newer grant held.
    assert update(collector, ref, 4, requested=800).json()["granted"] == 800
    overtaken = update(collector, ref, 3, event("e3", 150), requested=10).json()
    assert (overtaken["granted"], overtaken["final"]["action"]) == (700, "REDIRECT")
    assert amounts(month) == (700, 700)
    assert proof.verify() == []


def test_an_update_charges_what_was_used_and_tells_of_each_event(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    ref = create(collector, requested=400).json()["ref"]
    given = [event("e1", 100), event("e1", 100), event("e2", 5, model="none"), event("e1", 7)]
    body = update(collector, ref, 1, *given, requested=300).json()
    assert [body[name] for name in ("accepted", "duplicate", "conflict", "rejected")] == [
        1,
        1,
        1,
        1,
    ]
    assert [(one["index"], one["code"]) for one in body["errors"]] == [
        (2, "unknown_model"),
        (3, "conflict"),
    ]
    assert (body["granted"], amounts(month)) == (300, (900, 300))
    assert UsageBatch.objects.get().kind == "quota"
    assert UsageEvent.objects.get().subscriber_id == subscriber.pk
    assert proof.verify() == []


def test_used_tokens_are_debited_even_if_nothing_more_is_granted(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    ref = create(collector, requested=1000).json()["ref"]
    body = update(collector, ref, 1, event("e1", 1000), requested=500).json()
    assert (body["result"], body["granted"], body["accepted"]) == ("QUOTA_LIMIT_REACHED", 0, 1)
    assert body["exhausted"] == [{"subject": SUBJECT, "reason": "quota_exhausted"}]
    assert BlockChange.objects.get().reason == "quota_exhausted"
    assert amounts(month) == (0, 0)


def test_usage_beyond_the_grant_is_paid_by_what_is_free_and_then_uncovered(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    ref = create(collector, requested=400).json()["ref"]
    other = create(collector, "s2", requested=200).json()["ref"]
    update(collector, ref, 1, event("e1", 900), requested=0)
    assert amounts(month) == (200, 200)  # what the other session holds is not taken
    assert UsageBatch.objects.get().uncovered_mt == 100_000
    release(collector, other, 1, event("e2", 200))
    assert amounts(month) == (0, 0)
    assert proof.verify() == []


def test_one_token_at_a_time_ends_exactly_at_the_last(
    collector: APIClient, bare: Subscriber
) -> None:
    """BAL-08: ten tokens, thirty times one is asked for, and each that is granted is used."""
    bucket = give(bare, 10)
    answer = create(collector, requested=1).json()
    ref, granted = answer["ref"], [answer["granted"]]
    for sequence in range(1, 30):
        used = [event(f"e{sequence}", 1)] if granted[-1] else []
        granted.append(update(collector, ref, sequence, *used, requested=1).json()["granted"])
    assert granted == [1] * 10 + [0] * 20
    assert amounts(bucket) == (0, 0)
    assert proof.verify() == []


def test_an_idle_session_may_get_a_grant_later(collector: APIClient, bare: Subscriber) -> None:
    bucket = give(bare, 300)
    first = create(collector, requested=500).json()
    assert (first["granted"], first["final"]["action"]) == (300, "REDIRECT")
    second = update(collector, first["ref"], 1, event("e1", 300)).json()
    assert (second["result"], second["granted"]) == ("QUOTA_LIMIT_REACHED", 0)
    pack = give(bare, 250_000, kind="pack", start=NOON, now=NOON)
    third = update(collector, first["ref"], 2, requested=500).json()
    assert (third["result"], third["granted"], third["final"]) == ("SUCCESS", 500, None)
    assert amounts(bucket) == (0, 0)
    assert amounts(pack) == (250_000, 500)


@pytest.mark.parametrize(
    ("action", "free_model", "final"),
    [
        ("REDIRECT", "", {"action": "REDIRECT", "url": "https://t.example/plans/#packs"}),
        ("TERMINATE", "", {"action": "TERMINATE"}),
        ("RESTRICT", "fine", {"action": "RESTRICT", "model": "fine"}),
        ("RESTRICT", "", {"action": "TERMINATE"}),
    ],
)
def test_the_plan_says_what_is_final(
    collector: APIClient,
    subscriber: Subscriber,
    settings: Any,
    action: str,
    free_model: str,
    final: dict[str, str],
) -> None:
    settings.PUBLIC_URL = "https://t.example"
    terms(subscriber, final_action=action, free_model=free_model)
    assert create(collector, requested=2000).json()["final"] == final


def test_the_free_model_is_granted_when_nothing_is_left(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    terms(subscriber, final_action="RESTRICT", free_model="lab/FINE")
    create(collector, requested=1000)
    assert create(collector, "s2", requested=10).json()["final"]["model"] == "lab/FINE"
    free = create(collector, "s3", model="fine", requested=10).json()
    assert (free["result"], free["granted"], free["final"]) == ("SUCCESS", 10, None)
    assert amounts(month) == (1000, 1000)
    ref = free["ref"]
    release(collector, ref, 1, event("e1", 10, model="fine"))
    assert UsageBatch.objects.get().uncovered_mt == 10_000
    assert proof.verify() == []


def test_the_page_of_a_redirect_exists(collector: APIClient, subscriber: Subscriber) -> None:
    url = create(collector, requested=2000).json()["final"]["url"]
    assert resolve("/" + url.split("/", 3)[3].split("#")[0]).view_name == "portal-plans"


def test_a_model_restricted_bucket_is_held_for_its_models_only(
    collector: APIClient, bare: Subscriber, models: dict[str, Any]
) -> None:
    for_heavy = give(bare, 100, model_ids=[models["heavy"].pk])
    for_all = give(bare, 50)
    assert create(collector, requested=200).json()["granted"] == 50
    assert create(collector, "s2", model="HEAVY", requested=200).json()["granted"] == 100
    assert (amounts(for_heavy), amounts(for_all)) == ((100, 100), (50, 50))


def test_only_whole_tokens_are_granted(
    collector: APIClient, node: Node, bare: Subscriber, models: dict[str, Any]
) -> None:
    first, second = give(bare, 10), give(bare, 10)
    cached = {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}}
    send(node, event("e1", usage=cached, model="fine"))  # a tenth of a token
    assert create(collector, requested=50).json()["granted"] == 19
    for bucket in (first, second):
        bucket.refresh_from_db()
    assert (first.remaining_mt, first.reserved_mt) == (9_900, 9_900)
    assert (second.remaining_mt, second.reserved_mt) == (10_000, 9_100)


def test_a_bucket_of_another_time_is_not_held(collector: APIClient, bare: Subscriber) -> None:
    give(bare, 100, start=NOON + SECOND)
    give(bare, 100, start=BORN, end=NOON)
    assert create(collector, requested=10).json()["result"] == "QUOTA_LIMIT_REACHED"


def test_pay_as_you_go_is_granted_up_to_its_cap(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    payg(subscriber, cap=500)
    first = create(collector, requested=1300).json()
    assert (first["granted"], first["final"]) == (1300, None)
    second = create(collector, "s2", requested=300).json()
    assert (second["granted"], second["final"]["action"]) == (200, "REDIRECT")
    assert create(collector, "s3", requested=1).json()["result"] == "QUOTA_LIMIT_REACHED"
    assert proof.verify() == []
    body = update(collector, first["ref"], 1, event("e1", 1200), requested=200).json()
    assert body["granted"] == 100  # the cap less 200 priced and 200 held by the other
    release(collector, first["ref"], 2, event("e2", 100, at=NOON + SECOND))
    release(collector, second["ref"], 1, event("e3", 250, at=NOON + 2 * SECOND))
    batches = UsageBatch.objects.order_by("id").values_list("overage_mt", "uncovered_mt")
    assert list(batches) == [(200_000, 0), (100_000, 0), (200_000, 50_000)]
    subscriber.charging_profile.refresh_from_db()
    assert subscriber.charging_profile.reserved_payg_mt == 0
    assert proof.verify() == []


def test_what_a_session_holds_beyond_the_buckets_is_sold_to_nobody_else(
    collector: APIClient, node: Node, bare: Subscriber
) -> None:
    payg(bare, cap=500)
    ref = create(collector, requested=300).json()["ref"]
    other = send(node, event("other", 250)).tally
    assert (other.overage_mt, other.uncovered_mt) == (200_000, 50_000)
    release(collector, ref, 1, event("own", 300))
    assert UsageBatch.objects.latest("id").overage_mt == 300_000
    assert proof.verify() == []


def test_a_suspended_subscriber_is_denied_and_what_was_used_is_charged(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    ref = create(collector, requested=400).json()["ref"]
    lifecycle.suspend(subscriber_id=subscriber.pk, actor="clerk", reason="unpaid", now=NOON)
    body = update(collector, ref, 1, event("e1", 100), requested=400).json()
    assert (body["result"], body["granted"], body["accepted"]) == ("SERVICE_DENIED", 0, 1)
    assert create(collector, "s2").json()["result"] == "SERVICE_DENIED"
    assert amounts(month) == (900, 0)
    lifecycle.resume(subscriber_id=subscriber.pk, actor="clerk", reason="paid", now=NOON)
    assert update(collector, ref, 2, requested=400).json()["granted"] == 400


def test_a_terminated_subscriber_is_denied_until_another_has_the_number(
    collector: APIClient, subscriber: Subscriber, month: Bucket, clock_at_noon: Any
) -> None:
    clock_at_noon.move_to(NOON + SECOND)
    lifecycle.terminate(subscriber_id=subscriber.pk, actor="clerk", reason="asked", now=NOON)
    assert create(collector, requested=10).json()["result"] == "SERVICE_DENIED"
    heir = lifecycle.create_subscriber(
        account_id=subscriber.account_id, msisdn=SUBJECT, actor="clerk", reason="new", now=NOON
    )
    lifecycle.activate(subscriber_id=heir.pk, actor="clerk", reason="new", now=NOON)
    give(heir, 100)
    assert create(collector, "s2", requested=10).json()["granted"] == 10
    assert amounts(month) == (1000, 0)


def test_a_key_that_is_not_in_force_is_denied_and_what_was_used_is_charged(
    collector: APIClient, subscriber: Subscriber, month: Bucket, clock_at_noon: Any
) -> None:
    revoked, _token = issue_key(kind="subscriber", subscriber_id=subscriber.pk, now=BORN)
    expiring, _token = issue_key(
        kind="subscriber", subscriber_id=subscriber.pk, expires_at=NOON + SECOND, now=BORN
    )
    for key in (revoked, expiring):
        answer = create(collector, key.public_id, subject=key.public_id, requested=400)
        assert answer.json()["granted"] == 400
    clock_at_noon.move_to(NOON + SECOND)
    revoke(key_id=revoked.pk, now=NOON + SECOND)
    for number, session in enumerate(QuotaSession.objects.order_by("id")):
        used = event(f"e{number}", 100, subject=session.subject)
        body = update(collector, session.ref, 1, used, requested=400).json()
        assert (body["result"], body["granted"], body["accepted"]) == ("SERVICE_DENIED", 0, 1)
        again = create(collector, f"again {number}", subject=session.subject, requested=1)
        assert (again.json()["result"], again.json()["granted"]) == ("SERVICE_DENIED", 0)
    assert amounts(month) == (800, 0)
    assert create(collector, "by number", requested=1).json()["granted"] == 1


def test_a_number_that_nobody_holds_now_is_granted_nothing(
    collector: APIClient, subscriber: Subscriber, month: Bucket, clock_at_noon: Any
) -> None:
    given_up = subscriber.msisdn
    before = create(collector, "before", requested=100).json()["ref"]
    clock_at_noon.move_to(NOON + SECOND)
    lifecycle.change_number(
        subscriber_id=subscriber.pk, msisdn="+8613900000077", actor="clerk", reason="asked",
        now=NOON + SECOND,
    )  # fmt: skip
    body = create(collector, "old", subject=given_up, requested=100).json()
    assert (body["result"], body["granted"]) == ("USER_UNKNOWN", 0)
    # What was used on it is its last holder's all the same.
    body = update(collector, body["ref"], 1, event("e1", 30, subject=given_up)).json()
    assert (body["result"], body["accepted"]) == ("USER_UNKNOWN", 1)
    assert create(collector, "new", subject="+8613900000077", requested=50).json()["granted"] == 50
    # A session is of the subscriber, who goes on.
    assert update(collector, before, 1, requested=200).json()["granted"] == 200
    assert amounts(month) == (970, 250)


def test_events_of_others_are_charged_to_them(
    collector: APIClient, subscriber: Subscriber, neighbour: Subscriber, month: Bucket
) -> None:
    ref = create(collector, requested=400).json()["ref"]
    update(collector, ref, 1, event("e1", 30, subject=neighbour.msisdn), event("e2", 20))
    assert amounts(month)[0] == 980
    assert amounts(Bucket.objects.get(subscriber=neighbour)) == (970, 0)
    assert proof.verify() == []


def test_a_held_bucket_is_closed_only_when_it_is_free(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    create(collector, requested=400)
    ledger.close_due_buckets(now=month.close_at)
    month.refresh_from_db()
    assert month.closed_at is None
    supervising.expire_abandoned(now=month.close_at)
    ledger.close_due_buckets(now=month.close_at)
    assert amounts(month) == (0, 0)
