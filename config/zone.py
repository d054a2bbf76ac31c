"""Staff read and type times in the billing zone; the API speaks UTC and the database stores it."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone


class StaffReadBillingTime:
    """Around every page of the staff site; the portal's pages set the zone themselves."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path.startswith("/admin/"):
            return self.get_response(request)
        with timezone.override(settings.BILLING_TIME_ZONE):
            return self.get_response(request)
