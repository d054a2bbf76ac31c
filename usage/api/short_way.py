"""The short way of small reports: from the web server to the engine past Django's request cycle.

An event a request is what most gateways send, and there Django's handler, its middleware and DRF
cost more than counting the event. Only what goes well is answered here: a small plain body by an
admitted key. All else is told by the view as ever, which does it again from the start.
"""

import re
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from threading import BoundedSemaphore
from typing import Any

import msgspec
from django.conf import settings
from django.http import HttpResponse

from accounts.authentication import bearer_token
from config.errors import problem_response
from config.metrics import observe

from ..decoding import split_body
from ..gathering import SMALL_EVENTS, Report, TooBusy, take

ROUTE = "api/v1/usage/events"
SEQUENCE = re.compile(r"sequence=[0-9]{1,18}")
UNAVAILABLE = 503
SMALL_BYTES = 64 * 1024
TURN_SECONDS = 30.0
HEADERS = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}

Environ = dict[str, Any]
StartResponse = Callable[..., object]
Application = Callable[[Environ, Any], Iterable[bytes]]

_encode = msgspec.json.Encoder().encode


class ShortWay:
    """A WSGI application in front of Django's."""

    def __init__(self, django: Application) -> None:
        self._django = django

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != f"/{ROUTE}" or not (size := _small(environ)):
            return self._django(environ, start_response)
        started = time.perf_counter()
        body = environ["wsgi.input"].read(size)
        response = _answer(environ, body)
        if response is None:
            return self._django(environ | {"wsgi.input": BytesIO(body)}, start_response)
        observe("POST", ROUTE, response.status_code, time.perf_counter() - started)
        return _send(response, start_response)


class InTurn:
    """Lets in as many requests at once as there are connections for; the others wait outside.

    Small reports need many threads, which must not all take up something heavy.
    """

    def __init__(self, django: Application, *, most: int) -> None:
        self._django = django
        self._turns = BoundedSemaphore(most)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if not self._turns.acquire(timeout=TURN_SECONDS):
            busy = problem_response(TooBusy("The server is busy; send the same again."))
            assert busy is not None  # it is a refusal
            return _send(busy, start_response)
        try:
            return self._django(environ, start_response)
        finally:
            self._turns.release()


def _small(environ: Environ) -> int:
    """The size of a body that may go the short way, 0 for others."""
    length = environ.get("CONTENT_LENGTH") or ""
    if (
        environ["REQUEST_METHOD"] != "POST"
        or not (length.isascii() and length.isdecimal())
        or environ.get("HTTP_CONTENT_ENCODING")
        or (settings.SECURE_SSL_REDIRECT and not _is_secure(environ))
    ):
        return 0
    size = int(length)
    return size if size <= min(SMALL_BYTES, settings.USAGE_MAX_BYTES) else 0


def _is_secure(environ: Environ) -> bool:
    """Whether the request came over TLS, to us or to the proxy that we trust."""
    if settings.SECURE_PROXY_SSL_HEADER:
        name, value = settings.SECURE_PROXY_SSL_HEADER
        if name in environ:
            return bool(environ[name].partition(",")[0].strip() == value)
    return bool(environ["wsgi.url_scheme"] == "https")


def _answer(environ: Environ, body: bytes) -> HttpResponse | None:
    """The answer to a report that goes well, or that comes while the database is away or busy."""
    token = bearer_token(environ.get("HTTP_AUTHORIZATION", ""))
    query = environ.get("QUERY_STRING", "")
    if not token or (query and not SEQUENCE.fullmatch(query)):
        return None
    sequence = int(query.partition("=")[2]) if query else None
    try:
        events = split_body(body=body, content_type=environ.get("CONTENT_TYPE", ""), encoding="")
        if len(events) > SMALL_EVENTS:
            return None
        result = take(Report(token, events, sequence))
    except Exception as error:
        # Whatever else it is (a refused key, a body that does not read, a bug), the view tells it.
        problem = problem_response(error)
        return problem if problem is not None and problem.status_code == UNAVAILABLE else None
    return HttpResponse(_encode(result.shown()), headers=HEADERS)


def _send(response: HttpResponse, start_response: StartResponse) -> Iterable[bytes]:
    headers = [*response.items(), ("Content-Length", str(len(response.content)))]
    start_response(f"{response.status_code} {response.reason_phrase}", headers)
    return [response.content]
