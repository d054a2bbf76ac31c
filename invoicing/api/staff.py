"""The staff's half: invoices, payments, bill runs, and the proof of a period."""

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import KeyAuthentication
from accounts.pagination import NewestFirstPages
from accounts.permissions import actor_of, scope_required
from config import clock
from usage import periods

from .. import assurance, billrun, node_assurance, paying, pdf, reports, tasks
from ..models import BillRun, Invoice, Payment
from . import shapes

Invoices = scope_required("invoices:read", "invoices:write")


class InvoiceCollection(GenericAPIView[Invoice]):
    """Finalised invoices, newest first; `cycle` and `account` narrow them down."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [Invoices]
    pagination_class = NewestFirstPages
    serializer_class = shapes.InvoiceOutput
    queryset = Invoice.objects.none()

    @extend_schema(
        operation_id="invoices_list",
        parameters=[OpenApiParameter("cycle", str), OpenApiParameter("account", int)],
        responses=shapes.InvoiceOutput(many=True),
    )
    def get(self, request: Request) -> Response:
        page = self.paginate_queryset(_asked(request))
        return self.get_paginated_response(shapes.InvoiceOutput(page, many=True).data)


class InvoiceOne(APIView):
    """One invoice with its lines."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [Invoices]

    @extend_schema(responses=shapes.InvoiceDetail)
    def get(self, request: Request, number: str) -> Response:
        return Response(shapes.InvoiceDetail(_invoice(number)).data)


class InvoicePdf(APIView):
    """One invoice as a PDF."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [Invoices]
    renderer_classes = [shapes.PdfRenderer]
    content_negotiation_class = shapes.OneRenderer

    @extend_schema(responses={(200, "application/pdf"): OpenApiTypes.BINARY})
    def get(self, request: Request, number: str) -> Response:
        return Response(
            pdf.render(invoice=_invoice(number)),
            headers={"Content-Disposition": f'inline; filename="{number}.pdf"'},
        )


class PaymentConfirm(APIView):
    """The money of an offline payment is here."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [Invoices]

    @extend_schema(request=None, responses=shapes.PaymentOutput)
    def post(self, request: Request, payment_id: int) -> Response:
        payment = paying.confirm_offline(
            payment_id=payment_id, actor=actor_of(request), now=clock.now()
        )
        return Response(shapes.PaymentOutput(payment).data)


class PaymentReject(APIView):
    """The money of an offline payment did not come."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [Invoices]

    @extend_schema(request=shapes.RejectInput, responses=shapes.PaymentOutput)
    def post(self, request: Request, payment_id: int) -> Response:
        given = shapes.RejectInput(data=request.data)
        given.is_valid(raise_exception=True)
        payment = paying.reject_offline(
            payment_id=payment_id,
            actor=actor_of(request),
            reason=given.validated_data["reason"],
            now=clock.now(),
        )
        return Response(shapes.PaymentOutput(payment).data)


class PaymentCollection(GenericAPIView[Payment]):
    """Payments, newest first; `state` narrows them down."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [Invoices]
    pagination_class = NewestFirstPages
    serializer_class = shapes.PaymentOutput
    queryset = Payment.objects.none()

    @extend_schema(
        operation_id="payments_list",
        parameters=[OpenApiParameter("state", str, enum=Payment.State.values)],
        responses=shapes.PaymentOutput(many=True),
    )
    def get(self, request: Request) -> Response:
        payments = Payment.objects.select_related("invoice")
        if "state" in request.query_params:
            payments = payments.filter(state=request.query_params["state"])
        page = self.paginate_queryset(payments)
        return self.get_paginated_response(shapes.PaymentOutput(page, many=True).data)


class BillRunCollection(GenericAPIView[BillRun]):
    """Bill runs: GET lists them, POST has a cycle billed in the background, safe to repeat."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [Invoices]
    pagination_class = NewestFirstPages
    serializer_class = shapes.BillRunOutput
    queryset = BillRun.objects.none()

    @extend_schema(operation_id="bill_runs_list", responses=shapes.BillRunOutput(many=True))
    def get(self, request: Request) -> Response:
        page = self.paginate_queryset(BillRun.objects.all())
        return self.get_paginated_response(shapes.BillRunOutput(page, many=True).data)

    @extend_schema(request=shapes.BillRunInput, responses={202: shapes.BillRunInput})
    def post(self, request: Request) -> Response:
        given = shapes.BillRunInput(data=request.data)
        given.is_valid(raise_exception=True)
        cycle = periods.parse_cycle(given.validated_data["cycle"])
        billrun.refuse_running_cycle(cycle=cycle, now=clock.now())
        tasks.issue_invoices.delay(f"{cycle:%Y-%m}")
        return Response({"cycle": f"{cycle:%Y-%m}"}, status=202)


class Assurance(APIView):
    """The proof that no event, token or fen of the days [from, to) is lost."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required("assurance:read")]

    @extend_schema(
        parameters=[
            OpenApiParameter("from", OpenApiTypes.DATE, required=True),
            OpenApiParameter("to", OpenApiTypes.DATE, required=True),
        ],
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request) -> Response:
        start = periods.parse_day(request.query_params.get("from", ""))
        end = periods.parse_day(request.query_params.get("to", ""))
        return Response(assurance.assure(start=start, end=end))


class NodeAssurance(APIView):
    """Of the days [from, to), 31 at most, by node and hour: what the node counted itself, what was
    received, accepted, paid for and invoiced, what corrections changed of it (`correction_`,
    `corrected_`, with their events under `amendments`), and each difference with its events."""

    authentication_classes = [KeyAuthentication]
    permission_classes = [scope_required("assurance:read")]

    @extend_schema(
        operation_id="assurance_nodes",
        parameters=[
            OpenApiParameter("from", OpenApiTypes.DATE, required=True),
            OpenApiParameter("to", OpenApiTypes.DATE, required=True),
        ],
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request) -> Response:
        start = periods.parse_day(request.query_params.get("from", ""))
        end = periods.parse_day(request.query_params.get("to", ""))
        return Response(node_assurance.assure_nodes(start=start, end=end))


def _asked(request: Request) -> QuerySet[Invoice]:
    invoices = reports.finalised()
    if "cycle" in request.query_params:
        invoices = invoices.filter(cycle=periods.parse_cycle(request.query_params["cycle"]))
    if (account := request.query_params.get("account", "")).isdecimal():
        invoices = invoices.filter(account_id=int(account))
    return invoices


def _invoice(number: str) -> Invoice:
    invoice = reports.finalised().filter(number=number).first()
    if invoice is None:
        raise NotFound("There is no such invoice.")
    return invoice
