"""Refusals, and the one place where errors become problem details (RFC 9457)."""

import http
import logging
import sys
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.defaults import server_error
from kombu.exceptions import OperationalError as BrokerAway
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from config.dberrors import is_contention, is_lost_connection

PROBLEM = "application/problem+json"
RETRY_AFTER_SECONDS = 2
logger = logging.getLogger(__name__)


class DomainError(Exception):
    """A refusal with a reason. The detail tells what to do; `extra` adds members to the answer.

    Subclasses set `code` (for programs, never changed once published), `status` (HTTP) and `title`.
    """

    code = "refused"
    status = 400
    title = "Refused"

    def __init__(self, detail: str = "", **extra: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.extra = extra


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's hook: a problem response, or None for a bug (which stays a 500)."""
    problem = _problem(exc)
    if problem is None:
        return None
    set_rollback()
    headers = problem.pop("headers", {})
    # The content type is given outright: the negotiated renderer would call it plain JSON.
    return Response(problem, problem["status"], headers=headers, content_type=PROBLEM)


def problem_response(exc: Exception) -> JsonResponse | None:
    """The same answer for a plain Django view; None for a bug."""
    problem = _problem(exc)
    if problem is None:
        return None
    headers = problem.pop("headers", {})
    status = problem["status"]
    return JsonResponse(problem, status=status, headers=headers, content_type=PROBLEM)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler404: problem details under /api/, a page elsewhere."""
    from django.views.defaults import page_not_found as page

    if request.path.startswith("/api/"):
        return problem_response(Http404()) or page(request, exception)
    return page(request, exception)


def failed(request: HttpRequest) -> HttpResponse:
    """handler500: 503 with Retry-After while database or broker is away, else the 500 it is."""
    error = sys.exc_info()[1]
    response = problem_response(error) if isinstance(error, Exception) else None
    if response is not None and response.status_code == http.HTTPStatus.SERVICE_UNAVAILABLE:
        return response
    if request.path.startswith("/api/"):
        problem = _body(500, "internal_error", "The server failed; the error is in its log.")
        return JsonResponse(problem, status=500, content_type=PROBLEM)
    return server_error(request)


def _problem(exc: Exception) -> dict[str, Any] | None:
    if isinstance(exc, DomainError):
        body = _body(exc.status, exc.code, exc.detail, title=exc.title)
        return body | _retry(exc.status) | exc.extra
    if isinstance(exc, Http404):
        return _body(404, "not_found", "There is nothing here.")
    if isinstance(exc, PermissionDenied):
        return _body(403, "permission_denied", str(exc) or "You may not do this.")
    if isinstance(exc, exceptions.APIException):
        return _from_rest_framework(exc)
    if is_lost_connection(exc) or is_contention(exc):
        logger.warning("the database is away or busy: %s", exc)
        # Whether it was stored is not known when the connection was lost in the commit.
        detail = "The database is away or busy. Send the same again, with its ids: it counts once."
        return _body(503, "unavailable", detail) | _retry(503)
    if isinstance(exc, BrokerAway):
        logger.warning("the broker is away: %s", exc)
        detail = "The queue of background work is away. Send the same again: it is done once."
        return _body(503, "unavailable", detail) | _retry(503)
    return None


def _from_rest_framework(exc: exceptions.APIException) -> dict[str, Any]:
    if isinstance(exc, exceptions.ValidationError):
        errors = _flat(exc.get_full_details())
        body = _body(exc.status_code, "invalid", "Some fields are wrong; see errors.")
        return body | {"errors": errors}
    unauthenticated = exceptions.NotAuthenticated | exceptions.AuthenticationFailed
    status = 401 if isinstance(exc, unauthenticated) else exc.status_code
    codes = exc.get_codes()
    body = _body(status, codes if isinstance(codes, str) else exc.default_code, str(exc.detail))
    headers: dict[str, str] = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    wait = getattr(exc, "wait", None)  # of Throttled, in seconds
    if wait is not None:
        headers["Retry-After"] = str(int(wait) + 1)
    return body | ({"headers": headers} if headers else {})


def _flat(details: Any, field: str = "") -> list[dict[str, str]]:
    """DRF's nested details as a list of {field, code, detail}, fields joined by dots."""
    if isinstance(details, dict) and set(details) == {"message", "code"}:
        return [{"field": field, "code": details["code"], "detail": str(details["message"])}]
    items = details.items() if isinstance(details, dict) else enumerate(details)
    found = []
    for name, inner in items:
        leaf = isinstance(inner, dict) and set(inner) == {"message", "code"}
        below = field if leaf and isinstance(name, int) else f"{field}.{name}".lstrip(".")
        found += _flat(inner, below)
    return found


def _body(status: int, code: str, detail: str, *, title: str = "") -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": title or http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }


def _retry(status: int) -> dict[str, Any]:
    return {"headers": {"Retry-After": str(RETRY_AFTER_SECONDS)}} if status == 503 else {}
