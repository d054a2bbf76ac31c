"""What a node sends to quota sessions, and what is read of buckets afterwards."""

from typing import Any

from rest_framework.test import APIClient

from accounts.models import Subscriber
from usage.models import Bucket, ChargingProfile

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


def terms(subscriber: Subscriber, **changes: Any) -> None:
    """What the plan says of the end of the buckets."""
    ChargingProfile.objects.filter(subscriber=subscriber).update(**changes)


def amounts(bucket: Bucket) -> tuple[int, int]:
    """(remaining, reserved) in whole standard tokens."""
    bucket.refresh_from_db()
    assert bucket.remaining_mt % 1000 == bucket.reserved_mt % 1000 == 0
    return bucket.remaining_mt // 1000, bucket.reserved_mt // 1000
