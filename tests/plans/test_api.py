"""Plans over HTTP: anyone reads the catalogue, a subscriber their own, staff by scope."""

from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts import keys
from accounts.models import ApiKey, Subscriber
from config import clock
from plans import catalogue
from plans.models import Order, Subscription
from usage.models import Bucket, Pool

from .conftest import at
from .test_catalogue_file import PACK, file

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("shipped")]


def with_key(**key: Any) -> APIClient:
    _, token = keys.issue_key(now=clock.now(), **key)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


@pytest.fixture
def phone(subscriber: Subscriber) -> APIClient:
    return with_key(kind=ApiKey.Kind.SUBSCRIBER, subscriber_id=subscriber.pk)


@pytest.fixture
def neighbours_phone(neighbour: Subscriber) -> APIClient:
    return with_key(kind=ApiKey.Kind.SUBSCRIBER, subscriber_id=neighbour.pk)


@pytest.fixture
def crm(db: None) -> APIClient:
    return with_key(kind=ApiKey.Kind.STAFF, scopes=("accounts:read", "accounts:write"))


@pytest.fixture
def reader(db: None) -> APIClient:
    return with_key(kind=ApiKey.Kind.STAFF, scopes=("accounts:read",))


def order(client: APIClient, key: str | None = "tap-1", **body: str) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post("/api/v1/me/orders", body or {"plan": "pack-250k"}, headers=headers)


def test_anyone_reads_the_catalogue_and_may_keep_it_for_a_minute() -> None:
    answer = APIClient().get("/api/v1/catalogue")
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "public, max-age=60"
    body = answer.json()
    assert [plan["code"] for plan in body["plans"]][:3] == ["payg-4", "token-9.9", "token-29.9"]
    assert [pack["code"] for pack in body["packs"]] == ["pack-250k", "pack-400k"]
    assert body["plans"][1]["name"] == "词元畅享包 9.9 元"
    assert body["plans"][1]["name_en"] == "Token Plan 9.9"
    assert (body["plans"][1]["price_fen"], body["plans"][1]["tokens"]) == (990, 10_000_000)
    assert {model["code"] for model in body["models"]} >= {"telechat", "deepseek-v3.2", "glm-5"}
    unchanged = APIClient().get("/api/v1/catalogue", headers={"If-None-Match": answer["ETag"]})
    assert unchanged.status_code == 304


def test_the_catalogue_costs_two_queries(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(2):
        APIClient().get("/api/v1/catalogue")


def test_a_subscriber_buys_a_pack_once_per_key(phone: APIClient) -> None:
    first = order(phone)
    assert (first.status_code, first.json()["state"]) == (201, "fulfilled")
    again = order(phone)
    assert (again.status_code, again.json()) == (200, first.json())
    assert Bucket.objects.count() == 1


def test_a_key_reused_for_another_purchase_is_a_conflict(phone: APIClient) -> None:
    order(phone)
    conflict = order(phone, plan="pack-400k")
    assert (conflict.status_code, conflict.json()["code"]) == (409, "idempotency_conflict")
    assert conflict["Content-Type"] == "application/problem+json"


def test_a_purchase_without_a_key_is_refused(phone: APIClient) -> None:
    refused = order(phone, key=None)
    assert (refused.status_code, refused.json()["code"]) == (400, "idempotency_key_missing")
    assert not Order.objects.exists()


def test_an_order_to_be_paid_now_is_pending(phone: APIClient) -> None:
    placed = order(phone, plan="pack-250k", pay="now").json()
    assert placed["state"] == "pending"
    assert phone.get(f"/api/v1/me/orders/{placed['id']}").json() == placed
    assert phone.get("/api/v1/me/orders").json()["results"] == [placed]


def test_a_neighbour_sees_nothing_and_a_stranger_is_refused(
    phone: APIClient, neighbours_phone: APIClient
) -> None:
    placed = order(phone).json()
    assert neighbours_phone.get("/api/v1/me/orders").json()["results"] == []
    assert neighbours_phone.get(f"/api/v1/me/orders/{placed['id']}").status_code == 404
    for path in ("/api/v1/me/orders", "/api/v1/me/subscriptions"):
        assert APIClient().get(path).status_code == 401


def test_a_subscriber_takes_a_plan_and_ends_it(
    phone: APIClient, neighbours_phone: APIClient
) -> None:
    taken = phone.post("/api/v1/me/subscriptions", {"plan": "token-9.9"})
    assert (taken.status_code, taken.json()["state"]) == (201, "active")
    path = f"/api/v1/me/subscriptions/{taken.json()['id']}"
    assert phone.get("/api/v1/me/subscriptions").json()["results"] == [taken.json()]
    assert neighbours_phone.delete(path).status_code == 404
    ended = phone.delete(path)
    assert (ended.status_code, ended.json()["ends_at"] is None) == (200, False)
    following = {"plan": "token-29.9", "starts": "next_month"}
    upcoming = phone.post("/api/v1/me/subscriptions", following)
    assert (upcoming.status_code, upcoming.json()["state"]) == (201, "upcoming")
    removed = phone.delete(f"/api/v1/me/subscriptions/{upcoming.json()['id']}")
    assert removed.status_code == 204


def test_staff_gives_a_subscriber_a_plan_from_a_day_on(
    crm: APIClient, subscriber: Subscriber
) -> None:
    path = f"/api/v1/subscribers/{subscriber.pk}/subscriptions"
    day = clock.now().replace(day=1).date().isoformat()
    made = crm.post(path, {"plan": "token-9.9", "starts": day})
    assert made.status_code == 201
    assert crm.get(path).json()["results"] == [made.json()]
    again = crm.post(path, {"plan": "token-9.9"})
    assert (again.status_code, again.json()["code"]) == (409, "already_subscribed")


def test_who_lacks_the_scope_sells_nothing(
    reader: APIClient, phone: APIClient, subscriber: Subscriber
) -> None:
    path = f"/api/v1/subscribers/{subscriber.pk}/subscriptions"
    assert reader.get(path).status_code == 200
    for client in (reader, phone):
        assert client.post(path, {"plan": "token-9.9"}).status_code == 403
    assert not Subscription.objects.exists()


def test_an_unknown_subscriber_is_not_found(crm: APIClient) -> None:
    path = "/api/v1/subscribers/0/subscriptions"
    assert crm.get(path).status_code == 404
    assert crm.post(path, {"plan": "token-9.9"}).status_code == 404


def test_a_plan_that_fills_a_pool_says_so_and_which(
    phone: APIClient, subscriber: Subscriber
) -> None:
    offers = phone.get("/api/v1/catalogue").json()["plans"]
    assert {plan["code"]: plan["pool"] for plan in offers}["family-59.9"] == "family"
    assert {plan["pool"] for plan in offers if plan["code"] != "family-59.9"} == {""}
    taken = phone.post("/api/v1/me/subscriptions", {"plan": "family-59.9"})
    pool = Pool.objects.get()
    assert (taken.status_code, taken.json()["pool_id"]) == (201, pool.pk)
    balance = phone.get("/api/v1/me/balance").json()
    assert (balance["available_mt"], balance["usable_mt"]) == (0, pool.buckets.get().remaining_mt)
    assert order(phone).json()["pool_id"] is None


def test_a_pack_for_a_pool_that_is_not_there_is_refused_with_its_reason(
    phone: APIClient, tmp_path: Path
) -> None:
    pack = PACK + "    pool: family\n"
    catalogue.load(path=file(tmp_path, pack=pack), now=at("2026-01-01 00:00"))
    answer = order(phone, plan="pack-1")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_pool")
