"""Numbers for Prometheus: requests by route and status, how long they took; apps add their own.

With PROMETHEUS_MULTIPROC_DIR set (the `run` command sets it) the page sums all web and worker
processes on this machine; without it, it shows the process that answers.
"""

import os
import secrets
import time
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
)

REQUESTS = Counter("tokenpack_requests", "Requests answered", ["method", "route", "status"])
SECONDS = Histogram(
    "tokenpack_request_seconds",
    "Time to answer",
    ["route"],
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


class RequestMetrics:
    """Middleware. The label is the route's pattern, never the path, so that there are few."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        response = self.get_response(request)
        route = request.resolver_match.route if request.resolver_match else "none"
        observe(request.method or "", route, response.status_code, time.perf_counter() - started)
        return response


def observe(method: str, route: str, status: int, seconds: float) -> None:
    """Count an answered request under its route's pattern."""
    REQUESTS.labels(method, route, status).inc()
    SECONDS.labels(route).observe(seconds)


def metrics(request: HttpRequest) -> HttpResponse:
    """GET /metrics. With METRICS_TOKEN set it asks for that bearer token."""
    given = request.headers.get("Authorization", "")
    if settings.METRICS_TOKEN and not secrets.compare_digest(
        given.encode(), f"Bearer {settings.METRICS_TOKEN}".encode()
    ):
        return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
