"""What subscribers and their own apps see and pay: invoices of their account, their payments."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import KeyAuthentication, PortalSessionAuthentication
from accounts.pagination import NewestFirstPages
from accounts.permissions import IsSubscriber, subscriber_of
from config import clock

from .. import paying, pdf, reports
from ..models import Invoice, Payment
from . import shapes

SUBSCRIBER_AUTHENTICATION = [KeyAuthentication, PortalSessionAuthentication]
KEY_HEADER = OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER, required=True)


class MyInvoiceCollection(GenericAPIView[Invoice]):
    """My account's invoices, newest first."""

    authentication_classes = SUBSCRIBER_AUTHENTICATION
    permission_classes = [IsSubscriber]
    pagination_class = NewestFirstPages
    serializer_class = shapes.InvoiceOutput
    queryset = Invoice.objects.none()

    @extend_schema(operation_id="me_invoices_list", responses=shapes.InvoiceOutput(many=True))
    def get(self, request: Request) -> Response:
        page = self.paginate_queryset(reports.visible_to(subscriber=subscriber_of(request)))
        return self.get_paginated_response(shapes.InvoiceOutput(page, many=True).data)


class MyInvoiceOne(APIView):
    """One of my invoices with its lines."""

    authentication_classes = SUBSCRIBER_AUTHENTICATION
    permission_classes = [IsSubscriber]

    @extend_schema(responses=shapes.InvoiceDetail)
    def get(self, request: Request, number: str) -> Response:
        return Response(shapes.InvoiceDetail(_mine(request, number)).data)


class MyInvoicePdf(APIView):
    """One of my invoices as a PDF."""

    authentication_classes = SUBSCRIBER_AUTHENTICATION
    permission_classes = [IsSubscriber]
    renderer_classes = [shapes.PdfRenderer]
    content_negotiation_class = shapes.OneRenderer

    @extend_schema(responses={(200, "application/pdf"): OpenApiTypes.BINARY})
    def get(self, request: Request, number: str) -> Response:
        return Response(
            pdf.render(invoice=_mine(request, number)),
            headers={"Content-Disposition": f'inline; filename="{number}.pdf"'},
        )


class MyPaymentCollection(GenericAPIView[Payment]):
    """My payments: GET lists them, POST starts one of an invoice or an order."""

    authentication_classes = SUBSCRIBER_AUTHENTICATION
    permission_classes = [IsSubscriber]
    pagination_class = NewestFirstPages
    serializer_class = shapes.PaymentOutput
    queryset = Payment.objects.none()

    @extend_schema(operation_id="me_payments_list", responses=shapes.PaymentOutput(many=True))
    def get(self, request: Request) -> Response:
        page = self.paginate_queryset(_my_payments(request))
        return self.get_paginated_response(shapes.PaymentOutput(page, many=True).data)

    @extend_schema(
        request=shapes.PaymentInput,
        parameters=[KEY_HEADER],
        responses={201: shapes.StartedPayment},
    )
    def post(self, request: Request) -> Response:
        given = shapes.PaymentInput(data=request.data)
        given.is_valid(raise_exception=True)
        payment = paying.start_payment(
            account_id=subscriber_of(request).account_id,
            method=given.validated_data["method"],
            key=request.headers.get("Idempotency-Key", ""),
            card=given.validated_data["card"],
            now=clock.now(),
            **_target(request, given.validated_data),
        )
        step = paying.next_step(payment_id=payment.pk)
        about = shapes.PaymentOutput(payment).data | {"next_step": shapes.NextStepOutput(step).data}
        return Response(about, status=201)


def _mine(request: Request, number: str) -> Invoice:
    invoice = reports.visible_to(subscriber=subscriber_of(request)).filter(number=number).first()
    if invoice is None:
        raise NotFound("You have no such invoice.")
    return invoice


def _my_payments(request: Request) -> QuerySet[Payment]:
    """Payments of my orders, and of the invoices that I may see."""
    subscriber = subscriber_of(request)
    payments = Payment.objects.select_related("invoice").filter(account_id=subscriber.account_id)
    seen = reports.visible_to(subscriber=subscriber).values("pk")
    mine = payments.filter(order__subscriber=subscriber) | payments.filter(invoice__in=seen)
    return mine.order_by("-id")


def _target(request: Request, given: dict[str, Any]) -> dict[str, int]:
    if "invoice" in given:
        return {"invoice_id": _mine(request, given["invoice"]).pk}
    if not subscriber_of(request).orders.filter(id=given["order"]).exists():
        raise NotFound("You have no such order.")
    return {"order_id": given["order"]}
