"""Every refusal is a problem document (RFC 9457); a bug stays a 500."""

from typing import Any

import psycopg
import pytest
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, OperationalError, connection, transaction
from django.http import Http404, HttpRequest
from django.test import Client, RequestFactory
from kombu.exceptions import OperationalError as BrokerAway
from rest_framework import exceptions, serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from config import errors


class TooManyTokens(errors.DomainError):
    code = "too_many_tokens"
    status = 409
    title = "Too many tokens"


class Line(serializers.Serializer[Any]):
    amount = serializers.IntegerField(min_value=1)


class Order(serializers.Serializer[Any]):
    name = serializers.CharField()
    lines = Line(many=True)


class Failing(APIView):
    permission_classes = [AllowAny]
    error: Exception = Http404()

    def get(self, request: Request) -> Response:
        raise self.error


def answer_to(error: Exception) -> Response:
    view = Failing.as_view(error=error)
    response = view(APIRequestFactory().get("/api/v1/x"))
    assert isinstance(response, Response)
    response.render()
    return response


def test_a_refusal_carries_its_code_status_and_further_members() -> None:
    response = answer_to(TooManyTokens("Ask for fewer.", limit=5))
    assert response["Content-Type"] == "application/problem+json"
    assert (response.status_code, response.data) == (
        409,
        {
            "type": "about:blank",
            "title": "Too many tokens",
            "status": 409,
            "detail": "Ask for fewer.",
            "code": "too_many_tokens",
            "limit": 5,
        },
    )


def test_wrong_fields_are_listed_by_path() -> None:
    order = Order(data={"lines": [{"amount": 1}, {"amount": 0}]})
    with pytest.raises(exceptions.ValidationError) as failure:
        order.is_valid(raise_exception=True)
    response = answer_to(failure.value)
    assert response.status_code == 400
    assert {(e["field"], e["code"]) for e in response.data["errors"]} == {
        ("name", "required"),
        ("lines.1.amount", "min_value"),
    }


@pytest.mark.parametrize(
    "error", [exceptions.NotAuthenticated(), exceptions.AuthenticationFailed()]
)
def test_who_is_unknown_is_asked_for_a_bearer_key(error: Exception) -> None:
    response = answer_to(error)
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Http404(), 404, "not_found"),
        (exceptions.NotFound(), 404, "not_found"),
        (PermissionDenied(), 403, "permission_denied"),
        (exceptions.PermissionDenied(), 403, "permission_denied"),
        (exceptions.UnsupportedMediaType("text/plain"), 415, "unsupported_media_type"),
        (exceptions.ParseError(), 400, "parse_error"),
        (exceptions.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
    ],
)
def test_the_frameworks_refusals_look_like_ours(error: Exception, status: int, code: str) -> None:
    response = answer_to(error)
    assert (response.status_code, response.data["code"]) == (status, code)
    assert response["Content-Type"] == "application/problem+json"


def away(kind: type[psycopg.Error] | None) -> OperationalError:
    error = OperationalError("server closed the connection unexpectedly")
    error.__cause__ = kind("") if kind else psycopg.OperationalError("closed")
    return error


@pytest.mark.parametrize(
    "kind",
    [
        None,
        psycopg.errors.AdminShutdown,
        psycopg.errors.CannotConnectNow,
        psycopg.errors.TooManyConnections,
        psycopg.errors.ConnectionFailure,
        psycopg.errors.DeadlockDetected,
        psycopg.errors.SerializationFailure,
        psycopg.errors.LockNotAvailable,
    ],
)
def test_a_database_that_is_away_or_busy_asks_to_come_again(
    kind: type[psycopg.Error] | None,
) -> None:
    response = answer_to(away(kind))
    assert (response.status_code, response["Retry-After"]) == (503, "2")
    assert response.data["code"] == "unavailable"


def test_a_statement_that_took_too_long_is_a_bug_and_not_a_retry() -> None:
    with pytest.raises(OperationalError):
        answer_to(away(psycopg.errors.QueryCanceled))


@pytest.mark.django_db(transaction=True)
def test_a_real_refused_lock_is_told_apart() -> None:
    with (
        psycopg.connect(**psycopg_parameters()) as other,
        pytest.raises(OperationalError) as failure,
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        other.execute("LOCK TABLE auth_group IN ACCESS EXCLUSIVE MODE")
        cursor.execute("SET LOCAL lock_timeout = '50ms'")
        cursor.execute("SELECT 1 FROM auth_group")
    assert answer_to(failure.value).status_code == 503


def psycopg_parameters() -> dict[str, Any]:
    settings = connection.settings_dict
    return {
        "host": settings["HOST"],
        "port": settings["PORT"] or None,
        "user": settings["USER"],
        "password": settings["PASSWORD"] or None,
        "dbname": settings["NAME"],
    }


@pytest.mark.parametrize("bug", [ValueError("bug"), IntegrityError("bug")])
def test_a_bug_is_not_dressed_up_as_a_refusal(bug: Exception) -> None:
    with pytest.raises(type(bug)):
        answer_to(bug)


def test_an_address_that_is_not_there_is_a_problem_under_the_api(client: Client) -> None:
    response = client.get("/api/v1/nothing-here")
    assert (response.status_code, response["Content-Type"]) == (404, "application/problem+json")


def failed_page(error: Exception, path: str) -> Any:
    request: HttpRequest = RequestFactory().get(path)
    try:
        raise error
    except Exception:
        return errors.failed(request)


def test_a_page_too_says_503_while_the_database_is_away() -> None:
    response = failed_page(away(psycopg.errors.AdminShutdown), "/")
    assert (response.status_code, response["Retry-After"]) == (503, "2")


def test_a_broker_that_is_away_asks_to_come_again() -> None:
    away = BrokerAway("[Errno 111] Connection refused")
    for response in (answer_to(away), failed_page(away, "/admin/")):
        assert (response.status_code, response["Retry-After"]) == (503, "2")
    assert answer_to(away).data["code"] == "unavailable"


def test_a_failure_under_the_api_tells_nothing_but_that_it_failed() -> None:
    response = failed_page(ValueError("secret"), "/api/v1/x")
    assert response.status_code == 500
    assert b"secret" not in response.content


@pytest.mark.parametrize(
    "address",
    [
        "/api/v1/invoices/%00",
        "/api/v1/payments?state=a%00",
        "/plans/%00/",
        "/?a=%00",
        "/admin/usage/bucket/?q=a&kind__exact=%00",
    ],
)
def test_there_is_nothing_at_an_address_with_a_null_character(address: str) -> None:
    answer = Client().get(address)
    assert answer.status_code == 404
    if address.startswith("/api/"):
        assert answer.json()["code"] == "not_found"
