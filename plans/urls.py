"""Addresses of this app: the API under /api/v1/, the pages of the customer portal."""

from django.urls import URLPattern, URLResolver, path

from . import api, portal

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("catalogue", api.CatalogueView.as_view()),
    path("me/subscriptions", api.MySubscriptions.as_view()),
    path("me/subscriptions/<int:subscription_id>", api.MySubscription.as_view()),
    path("me/orders", api.MyOrders.as_view()),
    path("me/orders/<int:order_id>", api.MyOrder.as_view()),
    path("subscribers/<int:subscriber_id>/subscriptions", api.SubscriberSubscriptions.as_view()),
]
portal_urlpatterns: list[URLPattern | URLResolver] = [
    path("plans/", portal.plans, name="portal-plans"),
    path("plans/<str:code>/", portal.subscribe, name="portal-subscribe"),
]
