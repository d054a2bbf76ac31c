"""Addresses of this app: the API under /api/v1/, the pages of the customer portal."""

from django.urls import URLPattern, URLResolver, path

from . import portal
from .api import me, nodes

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("usage/events", nodes.ReportUsage.as_view()),
    path("quota/exhausted", nodes.ExhaustedFeed.as_view()),
    path("nodes/me", nodes.WhoAmI.as_view()),
    path("me/balance", me.MyBalance.as_view()),
    path("me/usage", me.MyUsage.as_view()),
    path("me/events", me.MyEvents.as_view()),
]
portal_urlpatterns: list[URLPattern | URLResolver] = [
    path("", portal.home, name="portal-home"),
    path("requests/", portal.requests, name="portal-requests"),
]
