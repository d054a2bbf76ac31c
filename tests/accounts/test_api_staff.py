from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts import keys
from accounts.models import Account, Subscriber
from config import clock

from .conftest import client_of


def problem(answer: Any, status: int, code: str) -> None:
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"].startswith("application/problem+json")
    assert answer.json()["code"] == code


def test_a_carrier_system_opens_an_account_and_leads_a_subscriber_through_life(
    clerk: APIClient,
) -> None:
    given = {"kind": "enterprise", "name": "华云科技", "tax_number": "91310000MA1FL0000X"}
    account = clerk.post("/api/v1/accounts", given)
    assert account.status_code == 201, account.content
    made = clerk.post(
        "/api/v1/subscribers",
        {"account_id": account.json()["id"], "msisdn": "139 0000 0001", "reason": "contract 7"},
    )
    assert made.status_code == 201, made.content
    assert (made.json()["msisdn"], made.json()["state"]) == ("+8613900000001", "created")
    here = f"/api/v1/subscribers/{made.json()['id']}"
    for step, state in (("activate", "active"), ("suspend", "suspended"), ("resume", "active")):
        answer = clerk.post(f"{here}/{step}", {"reason": "asked"})
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    moved = clerk.post(f"{here}/number", {"msisdn": "+8613900000005", "reason": "lost"})
    assert moved.json()["msisdn"] == "+8613900000005"
    assert clerk.post(f"{here}/terminate", {"reason": "left"}).json()["state"] == "terminated"

    detail = clerk.get(here).json()
    assert [number["msisdn"] for number in detail["numbers"]] == [
        "+8613900000001", "+8613900000005",
    ]  # fmt: skip
    assert [step["to_state"] for step in detail["transitions"]] == [
        "terminated", "active", "active", "suspended", "active", "created",
    ]  # fmt: skip
    assert all(step["actor"].startswith("staff key ak") for step in detail["transitions"])


def test_refusals_say_what_is_wrong(
    clerk: APIClient, subscriber: Subscriber, neighbour: Subscriber
) -> None:
    here = f"/api/v1/subscribers/{subscriber.id}"
    twice = clerk.post(f"{here}/activate", {"reason": "r"})
    problem(twice, 409, "illegal_transition")
    assert twice.json()["state"] == "active"
    problem(clerk.post(f"{here}/suspend", {"reason": " "}), 400, "invalid")
    taken = {"msisdn": neighbour.msisdn, "reason": "r"}
    problem(clerk.post(f"{here}/number", taken), 409, "number_in_use")
    problem(clerk.post(f"{here}/number", {**taken, "msisdn": "12"}), 400, "invalid_number")
    problem(clerk.get("/api/v1/subscribers/0"), 404, "unknown_subscriber")
    problem(clerk.get("/api/v1/accounts/0"), 404, "unknown_account")
    problem(clerk.get("/api/v1/subscribers?state=asleep"), 400, "invalid")
    problem(clerk.get("/api/v1/subscribers?account_id=x"), 400, "invalid")
    new = {"account_id": 0, "msisdn": "13900000009", "reason": "r"}
    problem(clerk.post("/api/v1/subscribers", new), 400, "invalid")
    new["account_id"] = 10**9
    problem(clerk.post("/api/v1/subscribers", new), 404, "unknown_account")


def test_subscribers_are_found_by_number_state_and_account(
    reader: APIClient, subscriber: Subscriber, neighbour: Subscriber
) -> None:
    def ids(query: str) -> list[int]:
        answer = reader.get(f"/api/v1/subscribers?{query}")
        assert answer.status_code == 200, answer.content
        return [one["id"] for one in answer.json()["results"]]

    assert ids("msisdn=13900000002") == [neighbour.id]
    assert ids("state=active") == [subscriber.id, neighbour.id]
    assert ids("state=suspended") == []
    assert ids(f"account_id={subscriber.account_id}") == [subscriber.id, neighbour.id]
    assert ids("msisdn=13900000099") == []


def test_lists_come_in_bounded_pages(reader: APIClient, account: Account) -> None:
    Account.objects.bulk_create(
        Account(name=f"a{index}", created_at=account.created_at) for index in range(600)
    )
    seen = []
    url = "/api/v1/accounts?limit=100000"
    for _ in range(3):
        page = reader.get(url).json()
        assert len(page["results"]) <= 500
        seen += [one["id"] for one in page["results"]]
        url = page["next"]
        if url is None:
            break
    assert seen == sorted(Account.objects.values_list("id", flat=True))


@pytest.mark.parametrize("path", ["accounts", "subscribers", "accounts/1", "subscribers/1"])
def test_who_lacks_the_scope_or_a_key_sees_nothing(phone: APIClient, path: str) -> None:
    problem(phone.get(f"/api/v1/{path}"), 403, "wrong_scope")
    stranger = APIClient().get(f"/api/v1/{path}")
    problem(stranger, 401, "not_authenticated")
    assert stranger["WWW-Authenticate"] == "Bearer"
    problem(client_of("akfalse.key").get(f"/api/v1/{path}"), 401, "invalid_key")


def test_a_reader_changes_nothing(reader: APIClient, subscriber: Subscriber) -> None:
    problem(reader.post("/api/v1/accounts", {"name": "x"}), 403, "wrong_scope")
    for step in ("activate", "suspend", "resume", "terminate", "number"):
        answer = reader.post(f"/api/v1/subscribers/{subscriber.id}/{step}", {"reason": "r"})
        problem(answer, 403, "wrong_scope")
    subscriber.refresh_from_db()
    assert subscriber.state == "active"


def test_the_users_name_is_the_actor_when_a_key_acts_for_a_user(
    subscriber: Subscriber, django_user_model: Any
) -> None:
    user = django_user_model.objects.create(username="li", is_staff=True)
    _, token = keys.issue_key(
        kind="staff", user_id=user.id, scopes=["accounts:write"], now=clock.now()
    )
    client_of(token).post(f"/api/v1/subscribers/{subscriber.id}/suspend", {"reason": "r"})
    assert subscriber.transitions.latest("id").actor == "li"
