"""Addresses of this app: the API under /api/v1/, the pages of the customer portal."""

from django.urls import URLPattern, URLResolver, path

from . import portal
from .api import counters, me, nodes, quota

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("usage/events", nodes.ReportUsage.as_view()),
    path("quota/exhausted", nodes.ExhaustedFeed.as_view()),
    path("quota/sessions", quota.QuotaSessions.as_view()),
    path("quota/sessions/<str:ref>/update", quota.QuotaUpdate.as_view()),
    path("quota/sessions/<str:ref>/release", quota.QuotaRelease.as_view()),
    path("nodes/me", nodes.WhoAmI.as_view()),
    path("nodes/me/counters", counters.NodeCounters.as_view()),
    path("nodes/me/callback-secret", counters.CallbackSecret.as_view()),
    path("me/balance", me.MyBalance.as_view()),
    path("me/usage", me.MyUsage.as_view()),
    path("me/events", me.MyEvents.as_view()),
]
portal_urlpatterns: list[URLPattern | URLResolver] = [
    path("", portal.home, name="portal-home"),
    path("requests/", portal.requests, name="portal-requests"),
]
