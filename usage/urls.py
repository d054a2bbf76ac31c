"""Addresses of this app: the API under /api/v1/, the pages of the customer portal."""

from django.urls import URLPattern, URLResolver

api_urlpatterns: list[URLPattern | URLResolver] = []
portal_urlpatterns: list[URLPattern | URLResolver] = []
