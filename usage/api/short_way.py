"""The short way: from the web server to the engine past Django's request cycle.

An event a request is what most gateways send, and before and after each inference they ask for
quota. There Django's handler, its middleware and DRF cost more than the work. Only what goes well
is answered here: a plain body by an admitted key. All else is told by the view as ever, which does
it again from the start.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from http.client import responses
from io import BytesIO
from threading import BoundedSemaphore
from typing import Any, NamedTuple

import msgspec
from django.conf import settings

from accounts.authentication import bearer_token
from config.errors import problem_response
from config.metrics import observe

from ..gathering import TooBusy

UNAVAILABLE = 503
SMALL_BYTES = 64 * 1024
TURN_SECONDS = 30
JSON = "application/json"
NO_TURNS = nullcontext()
HEADERS = [("Content-Type", JSON), ("X-Content-Type-Options", "nosniff")]

Environ = dict[str, Any]
StartResponse = Callable[..., object]
Answer = tuple[int, list[tuple[str, str]], bytes]  # status, headers, body
Application = Callable[[Environ, Any], Iterable[bytes]]

Told = tuple[int, Any]  # status, what the body shows

_encode = msgspec.json.Encoder().encode


class Call(NamedTuple):
    """What of a request is looked at; its token is not checked yet."""

    token: str
    query: str
    content_type: str
    body: bytes


class Way(NamedTuple):
    """How requests of a route are served. None, and all that is raised except for what may pass
    a moment later, leaves them to the view."""

    route: str
    serve: Callable[[Call], Told | None]
    most_bytes: int = SMALL_BYTES


class Turns:
    """Lets in only so many at once; the others wait, up to TURN_SECONDS."""

    def __init__(self, most: int) -> None:
        self._free = BoundedSemaphore(most)

    def __enter__(self) -> None:
        if not self._free.acquire(timeout=TURN_SECONDS):
            raise TooBusy("The server is busy; send the same again.")

    def __exit__(self, *_error: object) -> None:
        self._free.release()


class ShortWay:
    """A WSGI application in front of another, for the paths that have a way; with `turns`, bodies
    are read when it is their turn."""

    def __init__(
        self,
        django: Application,
        find: Callable[[str], Way | None],
        turns: Turns | nullcontext[None] = NO_TURNS,
    ) -> None:
        self._django = django
        self._find = find
        self._turns = turns

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        way = self._find(environ["PATH_INFO"])
        if way is None or not (size := _plain(environ, way.most_bytes)):
            return self._django(environ, start_response)
        try:
            # A body that is passed on stays in memory, and so within its turn.
            with self._turns:
                return self._serve(way, environ, size, start_response)
        except TooBusy as busy:
            return _busy(busy, start_response)

    def _serve(
        self, way: Way, environ: Environ, size: int, start_response: StartResponse
    ) -> Iterable[bytes]:
        started = time.perf_counter()
        body = environ["wsgi.input"].read(size)
        answer = _answer(way, environ, body)
        if answer is None:
            return self._django(environ | {"wsgi.input": BytesIO(body)}, start_response)
        observe("POST", way.route, answer[0], time.perf_counter() - started)
        return _send(answer, start_response)


class InTurn:
    """A WSGI application behind turns: of those that need a connection, as many as there are.

    Small reports need many threads, which must not all take up something heavy.
    """

    def __init__(self, django: Application, turns: Turns) -> None:
        self._django = django
        self._turns = turns

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            with self._turns:
                return self._django(environ, start_response)
        except TooBusy as busy:
            return _busy(busy, start_response)


def _busy(busy: TooBusy, start_response: StartResponse) -> Iterable[bytes]:
    return _send(_unavailable(busy) or (UNAVAILABLE, [], b""), start_response)


def _plain(environ: Environ, most: int) -> int:
    """The size of a body that may go the short way, 0 for others."""
    length = environ.get("CONTENT_LENGTH") or ""
    if (
        environ["REQUEST_METHOD"] != "POST"
        or not (length.isascii() and length.isdecimal() and len(length) < 10)
        or environ.get("HTTP_CONTENT_ENCODING")
        or not ("*/*" in (takes := environ.get("HTTP_ACCEPT", "*/*")) or takes == JSON)
        or (settings.SECURE_SSL_REDIRECT and not _is_secure(environ))
    ):
        return 0
    size = int(length)
    return size if size <= min(most, settings.USAGE_MAX_BYTES) else 0


def _is_secure(environ: Environ) -> bool:
    """Whether the request came over TLS, to us or to the proxy that we trust."""
    if settings.SECURE_PROXY_SSL_HEADER:
        name, value = settings.SECURE_PROXY_SSL_HEADER
        if name in environ:
            return bool(environ[name].partition(",")[0].strip() == value)
    return bool(environ["wsgi.url_scheme"] == "https")


def _answer(way: Way, environ: Environ, body: bytes) -> Answer | None:
    """The answer to what goes well, or what comes while the database is away or busy."""
    token = bearer_token(environ.get("HTTP_AUTHORIZATION", ""))
    if not token:
        return None
    query, content_type = environ.get("QUERY_STRING", ""), environ.get("CONTENT_TYPE", "")
    try:
        told = way.serve(Call(token, query, content_type, body))
    except Exception as error:
        # Whatever else it is (a refused key, a body that does not read, a bug), the view tells it.
        return _unavailable(error)
    return None if told is None else (told[0], HEADERS, _encode(told[1]))


def _unavailable(error: Exception) -> Answer | None:
    """The answer to what may pass a moment later; None for other errors."""
    problem = problem_response(error)
    if problem is None or problem.status_code != UNAVAILABLE:
        return None
    return UNAVAILABLE, [*problem.items()], problem.content


def _send(answer: Answer, start_response: StartResponse) -> Iterable[bytes]:
    status, headers, content = answer
    length = ("Content-Length", str(len(content)))
    start_response(f"{status} {responses[status]}", [*headers, length])
    return [content]
