"""A node that staff switched off is kept out of everything until it is switched on again."""

import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import Subscriber
from usage import nodes
from usage.models import Node, QuotaSession, UsageBatch

from .conftest import event
from .short_way import post

pytestmark = pytest.mark.usefixtures("clock_at_noon")
JSON = "application/json"
SESSION = {"session": "s1", "subject": "+8613900000001", "model": "plain", "requested": 10}
COUNTERS = {"counters": [{"model": "plain", "input_tokens": 1, "output_tokens": 1}]}


def calls(collector: APIClient) -> dict[str, Any]:
    """Everything a node asks for, by its name."""
    api = "/api/v1"
    return {
        "ingest": collector.post(
            f"{api}/usage/events", json.dumps([event("e1", 1)]), content_type=JSON
        ),
        "quota": collector.post(f"{api}/quota/sessions", json.dumps(SESSION), content_type=JSON),
        "counters": collector.post(
            f"{api}/nodes/me/counters", json.dumps(COUNTERS), content_type=JSON
        ),
        "feed": collector.get(f"{api}/quota/exhausted?cursor=0"),
        "me": collector.get(f"{api}/nodes/me"),
    }


def test_a_node_switched_off_is_refused_with_what_to_do(
    collector: APIClient, node: Node, subscriber: Subscriber
) -> None:
    nodes.switch(node_id=node.pk, active=False)
    for name, answer in calls(collector).items():
        assert answer.status_code == 403, name
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] == "node_switched_off"
        assert "switched on" in answer.json()["detail"]
    assert not UsageBatch.objects.exists()
    assert not QuotaSession.objects.exists()


def test_the_same_is_taken_once_the_node_is_on_again(
    collector: APIClient, node: Node, subscriber: Subscriber
) -> None:
    nodes.switch(node_id=node.pk, active=False)
    calls(collector)
    nodes.switch(node_id=node.pk, active=True)
    answers = calls(collector)
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "ingest": 200,
        "quota": 201,
        "counters": 200,
        "feed": 200,
        "me": 200,
    }
    assert answers["ingest"].json()["accepted"] == 1


def test_the_short_way_leaves_a_node_switched_off_to_the_view(
    node_and_token: tuple[Node, str], subscriber: Subscriber
) -> None:
    node, token = node_and_token
    report = json.dumps([event("e1", 1)]).encode()
    nodes.switch(node_id=node.pk, active=False)
    assert post(token, report)[0] == 0
    assert not UsageBatch.objects.exists()
    nodes.switch(node_id=node.pk, active=True)
    assert post(token, report)[0] == 200
