import pytest
from django.db import connection
from django.test import Client
from pytest_django import Settings

from config import health
from config.celery import app


def test_healthz_asks_nothing_of_others(client: Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.django_db
def test_readyz_is_ready_with_database_migrations_and_broker(client: Client) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert set(answer.json()["parts"].values()) == {"ok"}


@pytest.mark.django_db
def test_readyz_names_a_migration_that_is_missing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_migrated", False)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'sessions'")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["parts"]["migrations"] == "behind; run manage.py migrate"


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1/tokenpack"])
def test_readyz_names_a_broker_that_is_away(
    client: Client, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(app.conf, "broker_read_url", address)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["parts"] == {
        "database": "ok",
        "migrations": "ok",
        "broker": "unreachable",
    }


def test_metrics_count_requests_by_route(client: Client) -> None:
    client.get("/healthz")
    text = client.get("/metrics").content.decode()
    assert 'tokenpack_requests_total{method="GET",route="healthz",status="200"}' in text


def test_metrics_ask_for_the_token_when_there_is_one(client: Client, settings: Settings) -> None:
    settings.METRICS_TOKEN = "m-1"
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer m-1"}).status_code == 200
