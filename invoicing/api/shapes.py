"""How invoices and payments look in JSON. Money is fen, tokens are millitokens: integers."""

from collections.abc import Iterable
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from .. import reports
from ..models import BillRun, Invoice, InvoiceLine, Payment


class LineOutput(serializers.ModelSerializer[InvoiceLine]):
    class Meta:
        model = InvoiceLine
        fields = [
            "position",
            "kind",
            "name",
            "name_en",
            "msisdn",
            "model_code",
            "usage_cycle",
            "quantity_mt",
            "fen_per_million",
            "tax_category",
            "rate_bp",
            "net_fen",
            "vat_fen",
            "gross_fen",
        ]
        read_only_fields = fields


class InvoiceOutput(serializers.ModelSerializer[Invoice]):
    """An invoice that came from reports.finalised(), with what is paid of it."""

    cycle = serializers.DateField(format="%Y-%m", read_only=True)
    paid_fen = serializers.IntegerField(read_only=True)
    due_fen = serializers.IntegerField(read_only=True)
    pending_fen = serializers.IntegerField(read_only=True)
    payment_state = serializers.ChoiceField(choices=[reports.OPEN, reports.PAID], read_only=True)

    class Meta:
        model = Invoice
        fields = [
            "number",
            "account_id",
            "cycle",
            "buyer_name",
            "buyer_tax_number",
            "seller_name",
            "seller_tax_number",
            "net_fen",
            "vat_fen",
            "gross_fen",
            "prepaid_fen",
            "issued_at",
            "due_at",
            "paid_fen",
            "due_fen",
            "pending_fen",
            "payment_state",
        ]
        read_only_fields = fields

    def to_representation(self, instance: Invoice) -> dict[str, Any]:
        view = reports.view_of(invoice=instance)
        for name in ("paid_fen", "due_fen", "pending_fen"):
            setattr(instance, name, getattr(view, name))
        setattr(instance, "payment_state", view.state)  # noqa: B010 (not a field of the model)
        return super().to_representation(instance)


class InvoiceDetail(InvoiceOutput):
    """An invoice with its lines."""

    lines = serializers.SerializerMethodField()

    class Meta(InvoiceOutput.Meta):
        fields = [*InvoiceOutput.Meta.fields, "lines"]
        read_only_fields = fields

    @extend_schema_field(LineOutput(many=True))
    def get_lines(self, invoice: Invoice) -> list[LineOutput]:
        lines: Any = LineOutput(invoice.lines.order_by("position"), many=True).data
        return list(lines)


class PaymentOutput(serializers.ModelSerializer[Payment]):
    invoice = serializers.CharField(source="invoice.number", default=None, read_only=True)
    order = serializers.IntegerField(source="order_id", read_only=True)

    class Meta:
        model = Payment
        fields = [
            "id",
            "account_id",
            "invoice",
            "order",
            "method",
            "state",
            "amount_fen",
            "failure",
            "created_at",
            "settled_at",
        ]
        read_only_fields = fields


class NextStepOutput(serializers.Serializer[Any]):
    """How the payer goes on; empty when there is nothing to do but wait."""

    redirect_url = serializers.CharField(read_only=True)
    qr_url = serializers.CharField(read_only=True)
    client_secret = serializers.CharField(read_only=True)


class StartedPayment(PaymentOutput):
    """A started payment with the payer's next step."""

    next_step = NextStepOutput(read_only=True)

    class Meta(PaymentOutput.Meta):
        fields = [*PaymentOutput.Meta.fields, "next_step"]
        read_only_fields = fields


class PaymentInput(serializers.Serializer[Any]):
    """What is paid: an invoice by its number or an order by its id."""

    invoice = serializers.CharField(required=False, max_length=20)
    order = serializers.IntegerField(required=False, min_value=1)
    method = serializers.ChoiceField(choices=Payment.Method.choices)
    card = serializers.CharField(
        required=False,
        default="",
        max_length=100,
        help_text="A payment method of the provider, from its card form.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("invoice" in attrs) == ("order" in attrs):
            raise serializers.ValidationError("Name either an invoice or an order.")
        return attrs


class RejectInput(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=300)


class BillRunOutput(serializers.ModelSerializer[BillRun]):
    cycle = serializers.DateField(format="%Y-%m", read_only=True)

    class Meta:
        model = BillRun
        fields = ["cycle", "state", "started_at", "finished_at"]
        read_only_fields = fields


class BillRunInput(serializers.Serializer[Any]):
    cycle = serializers.CharField(max_length=7, help_text="The month, as 2026-10.")


class PdfRenderer(BaseRenderer):
    """Bytes as they are; a refusal is still JSON."""

    media_type = "application/pdf"
    format = "pdf"
    charset = None
    render_style = "binary"

    def render(self, data: Any, *args: Any, **options: Any) -> bytes:
        return data if isinstance(data, bytes) else JSONRenderer().render(data, *args, **options)


class OneRenderer(BaseContentNegotiation):
    """An address that ends in .pdf gives a PDF, whatever the Accept header says."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        return next(iter(parsers))

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        only = next(iter(renderers))
        return only, only.media_type
