"""Addresses of this app: the API under /api/v1/, the pages of the customer portal."""

from django.urls import URLPattern, URLResolver, path

from . import portal
from .api import me, staff, stripe

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("me/invoices", me.MyInvoiceCollection.as_view()),
    path("me/invoices/<str:number>.pdf", me.MyInvoicePdf.as_view()),
    path("me/invoices/<str:number>", me.MyInvoiceOne.as_view()),
    path("me/payments", me.MyPaymentCollection.as_view()),
    path("invoices", staff.InvoiceCollection.as_view()),
    path("invoices/<str:number>.pdf", staff.InvoicePdf.as_view()),
    path("invoices/<str:number>", staff.InvoiceOne.as_view()),
    path("payments", staff.PaymentCollection.as_view()),
    path("payments/<int:payment_id>/confirm", staff.PaymentConfirm.as_view()),
    path("payments/<int:payment_id>/reject", staff.PaymentReject.as_view()),
    path("bill-runs", staff.BillRunCollection.as_view()),
    path("assurance", staff.Assurance.as_view()),
    path("assurance/nodes", staff.NodeAssurance.as_view()),
    path("webhooks/stripe", stripe.StripeWebhook.as_view(), name="stripe-webhook"),
]
portal_urlpatterns: list[URLPattern | URLResolver] = [
    path("invoices/", portal.invoices, name="portal-invoices"),
    path("invoices/<str:number>/", portal.invoice, name="portal-invoice"),
    path("invoices/<str:number>/pay/", portal.pay_invoice, name="portal-pay-invoice"),
    path("packs/<str:code>/", portal.buy, name="portal-buy"),
    path("payments/<int:payment_id>/", portal.payment, name="portal-payment"),
]
