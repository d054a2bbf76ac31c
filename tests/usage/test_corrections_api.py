"""Void, amend, correct a weight and rate again over HTTP: scopes, keys, answers."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts import keys
from accounts.models import ApiKey
from usage import proof, tasks
from usage.models import Amendment, Bucket, Node, Rerating, UsageEvent, Weight

from .conftest import BORN, NOON, client_of, event, left, send

pytestmark = pytest.mark.usefixtures("clock_at_noon")


def staff_with(*scopes: str) -> APIClient:
    _key, token = keys.issue_key(kind=ApiKey.Kind.STAFF, scopes=scopes, name="erp", now=BORN)
    return client_of(token)


@pytest.fixture
def staff(db: None) -> APIClient:
    return staff_with("adjustments:write", "catalogue:read")


@pytest.fixture
def number(node: Node, month: Bucket) -> int:
    """The number of a stored event of ten tokens."""
    result = send(node, event("e1", 10))
    found = UsageEvent.objects.get()
    assert found.pk == result.batch_id * 16_384
    return found.pk


def post(client: APIClient, path: str, body: dict[str, Any], key: str = "") -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return client.post(f"/api/v1{path}", body, format="json", headers=headers)


def test_an_event_is_voided_once_per_key(staff: APIClient, number: int, month: Bucket) -> None:
    path = f"/usage/events/{number}/void"
    first = post(staff, path, {"reason": "test traffic"}, "k1")
    assert first.status_code == 201, first.json()
    body = first.json()
    assert (body["event"], body["kind"], body["mt"]) == (number, "void", -10_000)
    assert (body["debited_mt"], body["overage_mt"], body["uncovered_mt"]) == (-10_000, 0, 0)
    assert post(staff, path, {"reason": "test traffic"}, "k1").json() == body
    again = post(staff, path, {"reason": "test traffic"}, "k2")
    assert (again.status_code, again.json()["code"]) == (409, "correction_refused")
    assert left(month) == 1_000_000 and Amendment.objects.count() == 1


@pytest.mark.parametrize(
    "what",
    [
        {"usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}},
        {"counts": {"input": 3, "output": 1}},
    ],
)
def test_an_event_is_amended_by_usage_or_counts(
    staff: APIClient, number: int, month: Bucket, what: dict[str, Any]
) -> None:
    answer = post(staff, f"/usage/events/{number}/amend", what | {"reason": "recount"}, "k")
    assert answer.status_code == 201, answer.json()
    assert (answer.json()["input_tokens"], answer.json()["output_tokens"]) == (-7, 1)
    assert left(month) == 996_000
    assert proof.verify() == []


@pytest.mark.parametrize(
    ("body", "key", "status", "code"),
    [
        ({"counts": {"input": 1}}, "k", 400, ""),
        ({"counts": {"input": 1}, "reason": "r"}, "", 400, "invalid_correction"),
        ({"reason": "r"}, "k", 400, "invalid_correction"),
        ({"usage": {"a": 1}, "reason": "r"}, "k", 400, "invalid_correction"),
        ({"usage": {"prompt_tokens": 1}, "counts": {}, "reason": "r"}, "k", 400, ""),
        ({"counts": {"input": -1}, "reason": "r"}, "k", 400, ""),
        ({"counts": {"input": 10}, "reason": "r"}, "k", 409, "correction_refused"),
        ({"counts": {"input": 1}, "reason": "r"}, "k" * 121, 400, "invalid_correction"),
        # Written as an answer names them, these would take the whole event back.
        ({"counts": {"input_tokens": 9, "output_tokens": 1}, "reason": "r"}, "k", 400, "invalid"),
        ({"counts": {"input": 9, "outputs": 1}, "reason": "r"}, "k", 400, "invalid"),
        ({"counts": {}, "reason": "r"}, "k", 400, "invalid"),
    ],
)
def test_what_cannot_be_read_or_done_changes_nothing(
    staff: APIClient, number: int, month: Bucket, body: dict[str, Any], key: str, status: int,
    code: str,
) -> None:  # fmt: skip
    answer = post(staff, f"/usage/events/{number}/amend", body, key)
    assert answer.status_code == status, answer.json()
    assert answer["Content-Type"] == "application/problem+json"
    assert not code or answer.json()["code"] == code
    assert left(month) == 990_000


def test_a_key_used_for_another_correction_is_a_conflict(staff: APIClient, number: int) -> None:
    path = f"/usage/events/{number}/amend"
    post(staff, path, {"counts": {"input": 4}, "reason": "r"}, "k")
    answer = post(staff, path, {"counts": {"input": 5}, "reason": "r"}, "k")
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")


def test_an_unknown_event_is_not_found(staff: APIClient, node: Node) -> None:
    for number in (1, 2**63 - 1, 10**30):
        answer = post(staff, f"/usage/events/{number}/void", {"reason": "r"}, "k")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_event")


def test_only_the_scope_opens_corrections(number: int, collector: APIClient) -> None:
    others = [collector, staff_with("accounts:write"), APIClient()]
    paths = (
        f"/usage/events/{number}/void",
        f"/usage/events/{number}/amend",
        "/weights/1/correct",
        "/reratings",
        "/reratings/1/apply",
    )
    for client, status in zip(others, (403, 403, 401), strict=True):
        for path in paths:
            assert post(client, path, {"reason": "r"}, "k").status_code == status, path
    assert not Amendment.objects.exists()


def test_a_wrong_weight_is_corrected_and_its_days_rated_again(
    staff: APIClient, number: int, month: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(tasks.apply_rerating, "delay", begun.append)
    wrong = Weight.objects.get(model__code="plain")
    milli = dict.fromkeys(("input_milli", "cached_milli", "output_milli", "reasoning_milli"), 2000)
    answer = post(staff, f"/weights/{wrong.pk}/correct", milli | {"reason": "typing error"})
    assert answer.status_code == 201, answer.json()
    listed = staff.get("/api/v1/weights").json()["results"]
    assert [one["withdrawn_at"] is None for one in listed if one["model"] == "plain"] == [
        True,
        False,
    ]
    period = {"model": "plain", "from": "2026-11-01", "to": "2026-12-01", "reason": "typing error"}
    dry = post(staff, "/reratings", period)
    assert dry.status_code == 201, dry.json()
    assert dry.json()["report"]["difference_mt"] == 10_000 and left(month) == 990_000
    path = f"/reratings/{dry.json()['id']}"
    owner = UsageEvent.objects.get().subscriber_id
    one = {"subscriber": owner, "events": 1, "difference_mt": 10_000}
    told = staff.get(f"/api/v1{path}/subscribers")
    assert told.json() == {"subscribers": [one], "next": None}
    assert staff.get(f"/api/v1{path}/subscribers?after={owner}").json()["subscribers"] == []
    for query, status in (("1?after=-1", 400), ("1?after=x", 400), ("0", 404), ("9" * 30, 404)):
        wanted = query.replace("?", "/subscribers?") if "?" in query else f"{query}/subscribers"
        assert staff.get(f"/api/v1/reratings/{wanted}").status_code == status
    for _repeat in range(2):
        assert post(staff, f"{path}/apply", {}).status_code == 202
    for number in begun:
        tasks.apply_rerating(number)
    done = staff.get(f"/api/v1{path}").json()
    assert (done["state"], done["report"]["applied"]["difference_mt"]) == ("applied", 10_000)
    assert left(month) == 980_000
    assert [one["id"] for one in staff.get("/api/v1/reratings").json()["results"]] == [done["id"]]
    assert staff.get(f"/api/v1{path}/subscribers").json() == told.json()
    assert staff.get("/api/v1/reratings/0").status_code == 404


def test_the_minute_s_task_takes_up_what_nobody_applies(
    staff: APIClient, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(tasks.apply_rerating, "delay", begun.append)
    found = Rerating.objects.create(
        model_id=1, start=BORN, end=NOON, state="applying", actor="a", reason="r", made_at=NOON,
        report={"weights": []},
    )  # fmt: skip
    tasks.continue_reratings()
    assert begun == [found.pk]
