"""The short way as a test's client takes it: a WSGI call, Django behind it."""

import io
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

from django.http import HttpResponse

from usage.api.short_way import Environ
from usage.api.ways import in_front_of

Handler = Callable[[Environ], Any]
REPORTS = "/api/v1/usage/events"


def response_to(handler: Handler, environ: Environ) -> Any:
    """The response of the short way, or of Django's handler where it passes the request on."""
    passed_on = []
    head: list[Any] = []

    def django(passed: Environ, _start_response: object) -> list[bytes]:
        passed_on.append(handler(passed))
        return []

    content = b"".join(
        in_front_of(django, connections=2)(environ, lambda *start: head.extend(start))
    )
    if passed_on:
        return passed_on[0]
    response = HttpResponse(content, status=int(head[0].split()[0]), headers=dict(head[1]))
    response.wsgi_request = SimpleNamespace()  # type: ignore[attr-defined]  # the client looks there
    return response


def environ(
    token: str, body: bytes, *, path: str = REPORTS, query: str = "", **more: Any
) -> Environ:
    """A POST of JSON, as the web server tells of it."""
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_AUTHORIZATION": f"Bearer {token}",
        "wsgi.input": io.BytesIO(body),
        "wsgi.url_scheme": "http",
    } | more


def post(token: str, body: bytes, **about: Any) -> tuple[int, bytes]:
    """(status, body) of a request by the short way alone; (0, b"") where it passes it on."""
    status: list[str] = []
    passed_on: list[Environ] = []

    def django(passed: Environ, _start_response: object) -> list[bytes]:
        passed_on.append(passed)
        return []

    application = in_front_of(django, connections=2)
    request = environ(token, body, **about)
    content = b"".join(application(request, lambda line, _headers: status.append(line)))
    if passed_on:
        assert passed_on[0]["wsgi.input"].read() == body  # whole, for the view
        return 0, b""
    assert status[0].split(" ", 1)[1] == HTTPStatus(int(status[0][:3])).phrase
    return int(status[0][:3]), content


def patched(handler: Callable[[Any, Environ], Any]) -> Callable[[Any, Environ], Any]:
    """The `__call__` of a test client's handler, with the short way in front."""
    return lambda self, environ: response_to(partial(handler, self), environ)
