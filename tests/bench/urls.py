"""The product's addresses and, beside them in the same web server, the usual way's."""

from django.urls import include, path

from tests.bench.naive.api import ReportEvents

urlpatterns = [
    path("naive/events", ReportEvents.as_view()),
    path("", include("config.urls")),
]
