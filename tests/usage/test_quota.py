"""Quota sessions over HTTP: what is granted, held, charged and given back."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts import lifecycle
from accounts.models import Subscriber
from usage import ledger, proof, supervising
from usage.models import Bucket, Node, QuotaAnswer, QuotaSession, UsageBatch, UsageEvent
from usage.nodes import create_node

from .conftest import BORN, NOON, SECOND, client_of, event, give, send
from .test_charging import payg

pytestmark = pytest.mark.usefixtures("clock_at_noon")

SUBJECT = "+8613900000001"
URL = "/api/v1/quota/sessions"


def create(client: APIClient, name: str = "s1", sequence: int = 0, **more: Any) -> Any:
    body = {"session": name, "sequence": sequence, "subject": SUBJECT, "model": "plain"}
    return client.post(URL, body | more)


def update(client: APIClient, ref: str, sequence: int, *events: Any, **more: Any) -> Any:
    body = {"sequence": sequence, "events": list(events)} | more
    return client.post(f"{URL}/{ref}/update", body)


def release(client: APIClient, ref: str, sequence: int, *events: Any) -> Any:
    return client.post(f"{URL}/{ref}/release", {"sequence": sequence, "events": list(events)})


def amounts(bucket: Bucket) -> tuple[int, int]:
    """(remaining, reserved) in whole standard tokens."""
    bucket.refresh_from_db()
    assert bucket.remaining_mt % 1000 == bucket.reserved_mt % 1000 == 0
    return bucket.remaining_mt // 1000, bucket.reserved_mt // 1000


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
