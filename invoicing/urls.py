"""Addresses of this app: the API under /api/v1/, the pages of the customer portal."""

from django.urls import URLPattern, URLResolver, path

from . import portal

api_urlpatterns: list[URLPattern | URLResolver] = []
portal_urlpatterns: list[URLPattern | URLResolver] = [
    path("invoices/", portal.invoices, name="portal-invoices"),
    path("invoices/<str:number>/", portal.invoice, name="portal-invoice"),
    path("invoices/<str:number>/pay/", portal.pay_invoice, name="portal-pay-invoice"),
    path("packs/<str:code>/", portal.buy, name="portal-buy"),
    path("payments/<int:payment_id>/", portal.payment, name="portal-payment"),
]
