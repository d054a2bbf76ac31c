"""What holds for every page: its Content-Security-Policy, and addresses that can be looked up."""

from collections.abc import Callable

from django.http import Http404, HttpRequest, HttpResponse

from config.errors import page_not_found

# The portal has no inline script or style at all.
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; manifest-src 'self'"
)
# The admin site's and the API pages' scripts compile expressions and write styles in place.
LOOSE = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
)
LOOSE_PATHS = ("/admin/", "/api/")


class ContentSecurityPolicy:
    """Adds the header unless the view set its own."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        policy = LOOSE if request.path.startswith(LOOSE_PATHS) else STRICT
        response.headers.setdefault("Content-Security-Policy", policy)
        return response


class NoNullCharacters:
    """There is nothing at an address with a null character: PostgreSQL has no text with one, so
    each look-up of it would fail. What staff searches for (`q`) is looked into by the search."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        path, query = request.path_info, request.META.get("QUERY_STRING", "")
        may_search = path.startswith("/admin/")
        held = [part for part in query.split("&") if "%00" in part]
        if "\0" in path or any(not (may_search and part.startswith("q=")) for part in held):
            return page_not_found(request, Http404())
        return self.get_response(request)
