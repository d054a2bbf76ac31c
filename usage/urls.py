"""Addresses of this app: the API under /api/v1/, the pages of the customer portal."""

from django.urls import URLPattern, URLResolver, path

from . import portal
from .api import (
    adjustments,
    balances,
    corrections,
    counters,
    limits,
    me,
    nodes,
    pools,
    quota,
    rerating,
)

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("usage/events", nodes.ReportUsage.as_view()),
    path("quota/exhausted", nodes.ExhaustedFeed.as_view()),
    path("quota/sessions", quota.QuotaSessions.as_view()),
    path("quota/sessions/<str:ref>/update", quota.QuotaUpdate.as_view()),
    path("quota/sessions/<str:ref>/release", quota.QuotaRelease.as_view()),
    path("subscribers/<int:subscriber_id>/balance", balances.SubscriberBalance.as_view()),
    path("subscribers/<int:subscriber_id>/limits", limits.SubscriberLimits.as_view()),
    path("me/keys/<str:public_id>/limits", limits.MyKeyLimits.as_view()),
    path("nodes/me", nodes.WhoAmI.as_view()),
    path("nodes/me/counters", counters.NodeCounters.as_view()),
    path("nodes/me/callback-secret", counters.CallbackSecret.as_view()),
    path("usage/events/<int:event_id>/void", corrections.VoidEvent.as_view()),
    path("usage/events/<int:event_id>/amend", corrections.AmendEvent.as_view()),
    path("weights", rerating.WeightCollection.as_view()),
    path("weights/<int:weight_id>/correct", rerating.CorrectWeight.as_view()),
    path("reratings", rerating.ReratingCollection.as_view()),
    path("reratings/<int:rerating_id>", rerating.ReratingOne.as_view()),
    path("reratings/<int:rerating_id>/subscribers", rerating.ReratingDifferences.as_view()),
    path("reratings/<int:rerating_id>/apply", rerating.ApplyRerating.as_view()),
    path("adjustments", adjustments.Adjustments.as_view()),
    path("transfers", adjustments.Transfers.as_view()),
    path("pools", pools.PoolCollection.as_view()),
    path("pools/<int:pool_id>", pools.PoolOne.as_view()),
    path("pools/<int:pool_id>/members", pools.PoolMembers.as_view()),
    path("pools/<int:pool_id>/members/<int:subscriber_id>", pools.PoolMemberOne.as_view()),
    path("pools/<int:pool_id>/grants", pools.PoolGrants.as_view()),
    path("me/balance", balances.MyBalance.as_view()),
    path("me/usage", me.MyUsage.as_view()),
    path("me/events", me.MyEvents.as_view()),
]
portal_urlpatterns: list[URLPattern | URLResolver] = [
    path("", portal.home, name="portal-home"),
    path("requests/", portal.requests, name="portal-requests"),
]
