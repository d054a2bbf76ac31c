"""Invoices with their lines, bill runs with their button, tax rates and number series."""

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.admin.subscribers import AccountAdmin
from config import clock
from config.admin import ReadOnlyAdmin, ReadOnlyInline, ask, subject_of
from config.formatting import exact_tokens, yuan
from usage.admin.filters import CycleFilter
from usage.periods import cycle_end, parse_cycle

from .. import reports
from ..models import BillRun, Invoice, InvoiceLine, InvoiceSeries, TaxRate
from ..refusals import CycleNotEnded


class LineInline(ReadOnlyInline):
    model = InvoiceLine
    ordering = ("position",)
    per_page = 50
    fields = ("position", "name", "msisdn", "model_code", "tokens", "net", "vat", "gross", "rate")
    readonly_fields = ("tokens", "net", "vat", "gross", "rate")

    @display(description=_("Standard tokens"))
    def tokens(self, line: InvoiceLine) -> str:
        return "" if line.quantity_mt is None else exact_tokens(line.quantity_mt)

    @display(description=_("Net"))
    def net(self, line: InvoiceLine) -> str:
        return yuan(line.net_fen)

    @display(description=_("VAT"))
    def vat(self, line: InvoiceLine) -> str:
        return yuan(line.vat_fen)

    @display(description=_("Gross"))
    def gross(self, line: InvoiceLine) -> str:
        return yuan(line.gross_fen)

    @display(description=_("VAT rate"))
    def rate(self, line: InvoiceLine) -> str:
        percent, hundredths = divmod(line.rate_bp, 100)
        return f"{percent}.{hundredths:02d} %" if hundredths else f"{percent} %"


class InvoiceAmounts:
    """The totals of an invoice as money."""

    @display(description=_("Net"))
    def net(self, invoice: Invoice) -> str:
        return yuan(invoice.net_fen)

    @display(description=_("VAT"))
    def vat(self, invoice: Invoice) -> str:
        return yuan(invoice.vat_fen)

    @display(description=_("Gross"), ordering="gross_fen")
    def gross(self, invoice: Invoice) -> str:
        return yuan(invoice.gross_fen)


class InvoiceInline(InvoiceAmounts, ReadOnlyInline):
    model = Invoice
    show_change_link = True
    fields = ("number", "cycle", "gross", "issued_at", "due_at")
    readonly_fields = ("gross",)


AccountAdmin.inlines.append(InvoiceInline)


@admin.register(Invoice)
class InvoiceAdmin(InvoiceAmounts, ReadOnlyAdmin):
    list_display = ("number", "account", "cycle", "net", "vat", "gross", "paid", "due_at", "pdf")
    list_select_related = ("account",)
    list_filter = (CycleFilter, "state")
    search_texts = ("number", "buyer_name")
    search_phones = ("account__subscribers__msisdn",)
    search_ids = ("account_id",)
    readonly_fields = ("net", "vat", "gross", "paid", "pdf")
    inlines = (LineInline,)
    actions_detail = ("download",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Invoice]:
        return reports.finalised()

    @display(description=_("Paid"), boolean=True)
    def paid(self, invoice: Invoice) -> bool:
        return reports.view_of(invoice=invoice).state == reports.PAID

    @display(description=_("PDF"))
    def pdf(self, invoice: Invoice) -> SafeString:
        address = reverse("admin:invoicing_invoice_download", args=[invoice.pk])
        return format_html('<a class="text-primary-600" href="{}">PDF</a>', address)

    @action(description=_("Download PDF"), permissions=["view"], icon="download")
    def download(self, request: HttpRequest, object_id: str) -> HttpResponse:
        from .. import pdf

        invoice = subject_of(self, request, object_id, Invoice)
        response = HttpResponse(pdf.render(invoice=invoice), content_type="application/pdf")
        response["Content-Disposition"] = f'attachment; filename="{invoice.number}.pdf"'
        return response


class CycleForm(forms.Form):
    """The month to bill, as 2026-10."""

    cycle = forms.CharField(
        label=_("Cycle"), max_length=7, help_text="2026-10", widget=UnfoldAdminTextInputWidget
    )


@admin.register(BillRun)
class BillRunAdmin(ReadOnlyAdmin):
    """The button hands the work to Celery; pressing it twice bills nobody twice."""

    list_display = ("cycle", "state", "started_at", "finished_at")
    list_filter = ("state",)
    ordering = ("-cycle",)
    actions_list = ("run",)

    @action(description=_("Run"), permissions=["invoicing.add_billrun"], icon="play_arrow")
    def run(self, request: HttpRequest) -> HttpResponse:
        from .. import tasks

        def perform(form: CycleForm) -> str:
            cycle = parse_cycle(form.cleaned_data["cycle"])
            if cycle_end(cycle) > clock.now():
                raise CycleNotEnded(_t("This month has not ended; bill it after its last day."))
            tasks.issue_invoices.delay(f"{cycle:%Y-%m}")
            return _t("The billing of %(cycle)s is under way; reload to see it end.") % {
                "cycle": f"{cycle:%Y-%m}"
            }

        return ask(self, request, title=_t("Run"), form_class=CycleForm, perform=perform)


@admin.register(TaxRate)
class TaxRateAdmin(ReadOnlyAdmin):
    list_display = ("category", "rate_bp", "valid_from", "valid_until")
    list_filter = ("category",)
    ordering = ("category", "-valid_from")


@admin.register(InvoiceSeries)
class InvoiceSeriesAdmin(ReadOnlyAdmin):
    list_display = ("year", "region", "channel", "last_number")
