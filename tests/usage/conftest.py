"""The people of these tests: a node that reports, a subscriber with a month's bucket, a neighbour
who sees nothing of it. Time is NOON; nothing sleeps."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from rest_framework.test import APIClient, ForceAuthClientHandler

from accounts import lifecycle
from accounts.models import Account, Subscriber
from usage import ledger
from usage.batches import BatchResult
from usage.ingest import ingest
from usage.models import Bucket, InferenceModel, Node
from usage.nodes import create_node
from usage.periods import BILLING_ZONE
from usage.weights import put_model, put_weight

from .short_way import patched


def at(text: str) -> datetime:
    """An instant written in billing-zone time, as in `2026-11-24 10:00`."""
    return datetime.fromisoformat(text).replace(tzinfo=BILLING_ZONE)


NOON = at("2026-11-24 12:00")
BORN = at("2026-01-01 00:00")
START, END = at("2026-11-01 00:00"), at("2026-12-01 00:00")
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)

Grant = Callable[..., Bucket]
Report = Callable[..., BatchResult]


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder for sockets: below pytest's own one a path might become too long."""
    with tempfile.TemporaryDirectory(prefix="sockets") as name:
        yield Path(name)


@pytest.fixture
def noon() -> datetime:
    return NOON


@pytest.fixture
def models(db: None) -> dict[str, InferenceModel]:
    """`plain`: every token weighs one. `heavy`: ten for input, one for cached, forty for output,
    twenty for reasoning. `fine`: 1, 0.1 and 4."""
    weights = {
        "plain": (1000, 1000, 1000, 1000),
        "heavy": (10_000, 1000, 40_000, 20_000),
        "fine": (1000, 100, 4000, 4000),
    }
    made = {}
    for code, (given, cached, output, reasoning) in weights.items():
        made[code] = put_model(code=code, name=code, aliases=[f"lab/{code}"], now=BORN)
        put_weight(
            model_code=code, input_milli=given, cached_milli=cached, output_milli=output,
            reasoning_milli=reasoning, valid_from=BORN, now=BORN,
        )  # fmt: skip
    return made


@pytest.fixture
def node_and_token(models: dict[str, InferenceModel]) -> tuple[Node, str]:
    return create_node(name="n1", cluster="wuxi", now=BORN)


@pytest.fixture
def node(node_and_token: tuple[Node, str]) -> Node:
    return node_and_token[0]


@pytest.fixture
def collector(node_and_token: tuple[Node, str]) -> APIClient:
    """The node's HTTP client."""
    return client_of(node_and_token[1])


def client_of(token: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


@pytest.fixture(params=["by the view", "by the short way"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small requests have a way of their own, by which everything must be as by the view."""
    if request.param == "by the short way":
        handler = ForceAuthClientHandler.__call__
        monkeypatch.setattr(ForceAuthClientHandler, "__call__", patched(handler))
    return str(request.param)


@pytest.fixture
def clock_at_noon() -> Iterable[time_machine.Traveller]:
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture
def account(db: None) -> Account:
    return lifecycle.open_account(kind="person", name="Wang", now=BORN)


def make_subscriber(account: Account, msisdn: str) -> Subscriber:
    created = lifecycle.create_subscriber(
        account_id=account.id, msisdn=msisdn, actor="clerk", reason="new", now=BORN
    )
    return lifecycle.activate(
        subscriber_id=created.id, actor="clerk", reason="new", now=BORN + SECOND
    )


@pytest.fixture
def bare(account: Account) -> Subscriber:
    """An active subscriber without a bucket."""
    return make_subscriber(account, "+8613900000001")


@pytest.fixture
def month(bare: Subscriber) -> Bucket:
    """The subscriber's plan bucket: 1,000 standard tokens for November."""
    return give(bare, 1000)


@pytest.fixture
def subscriber(bare: Subscriber, month: Bucket) -> Subscriber:
    return bare


@pytest.fixture
def neighbour(account: Account) -> Subscriber:
    other = make_subscriber(account, "+8613900000002")
    give(other, 1000)
    return other


def give(
    subscriber: Subscriber,
    tokens: int,
    *,
    kind: str = "plan",
    key: str | None = None,
    start: datetime = START,
    end: datetime = END,
    now: datetime = START,
    **more: Any,
) -> Bucket:
    """Grant whole standard tokens; the key is unique unless told."""
    bucket, _new = ledger.grant(
        subscriber_id=subscriber.id, kind=kind, name="月包", name_en="month",
        amount_mt=tokens * 1000, valid_from=start, valid_until=end,
        key=key or f"test:{subscriber.id}:{Bucket.objects.count()}", now=now, **more,
    )  # fmt: skip
    return bucket


def event(
    id: str,
    tokens: int | None = None,
    *,
    subject: str = "+8613900000001",
    at: datetime = NOON,
    model: str = "plain",
    source: str = "n1",
    usage: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A usage event as a node reports it."""
    return {
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": "inference.completed",
        "subject": subject,
        "time": at.isoformat(),
        "data": {"model": model, "usage": usage or {"prompt_tokens": tokens}},
    } | more


def send(
    node: Node, *events: dict[str, Any], now: datetime = NOON, sequence: int | None = None
) -> BatchResult:
    """Ingest events as the API would."""
    raw = [json.dumps(one).encode() for one in events]
    return ingest(node=node, events=raw, now=now, sequence=sequence)


def counts(result: BatchResult) -> tuple[int, int, int, int]:
    """(accepted, duplicate, conflict, rejected)."""
    tally = result.tally
    assert tally.received == tally.accepted + tally.duplicate + tally.conflict + tally.rejected
    assert tally.accepted_mt == tally.debited_mt + tally.overage_mt + tally.uncovered_mt
    return tally.accepted, tally.duplicate, tally.conflict, tally.rejected


def left(bucket: Bucket) -> int:
    """What remains, in millitokens."""
    bucket.refresh_from_db()
    return bucket.remaining_mt


def codes(result: BatchResult) -> list[tuple[int, str]]:
    """(position, code) of what was refused."""
    return [(one.position, one.code) for one in result.refusals]
