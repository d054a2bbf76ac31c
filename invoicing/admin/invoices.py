"""Invoices with their lines, bill runs with their button, tax rates and number series."""

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.admin.subscribers import AccountAdmin
from config import clock
from config.admin import ReadOnlyAdmin, ReadOnlyInline, display
from config.buttons import ask, button, subject_of
from usage.admin.filters import CycleFilter
from usage.periods import cycle_end, parse_cycle

from .. import pdf, reports, tasks
from ..models import BillRun, Invoice, InvoiceLine, InvoiceSeries, TaxRate
from ..refusals import CycleNotEnded


class LineInline(ReadOnlyInline):
    model = InvoiceLine
    ordering = ("position",)
    per_page = 50
    fields = (
        "position",
        "name",
        "msisdn",
        "model_code",
        "quantity_mt",
        "net_fen",
        "vat_fen",
        "gross_fen",
        "rate",
    )
    readonly_fields = ("rate",)

    @display(description=_("VAT rate"))
    def rate(self, line: InvoiceLine) -> str:
        percent, hundredths = divmod(line.rate_bp, 100)
        return f"{percent}.{hundredths:02d} %" if hundredths else f"{percent} %"


class InvoiceInline(ReadOnlyInline):
    model = Invoice
    show_change_link = True
    fields = ("number", "cycle", "gross_fen", "issued_at", "due_at")


AccountAdmin.inlines.append(InvoiceInline)


@admin.register(Invoice)
class InvoiceAdmin(ReadOnlyAdmin):
    list_display = (
        "number",
        "account",
        "cycle",
        "net_fen",
        "vat_fen",
        "gross_fen",
        "paid",
        "due_at",
        "document",
    )
    list_select_related = ("account",)
    list_filter = (CycleFilter, "state")
    search_texts = ("number", "buyer_name")
    search_phones = ("account__subscribers__msisdn",)
    search_ids = ("account_id",)
    readonly_fields = ("paid",)
    inlines = (LineInline,)
    actions_detail = ("download",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Invoice]:
        return reports.finalised()

    @display(description=_("Paid"), boolean=True)
    def paid(self, invoice: Invoice) -> bool:
        return reports.view_of(invoice=invoice).state == reports.PAID

    @display(description=_("PDF"))
    def document(self, invoice: Invoice) -> SafeString:
        address = reverse("admin:invoicing_invoice_download", args=[invoice.pk])
        return format_html('<a class="text-primary-600" href="{}">PDF</a>', address)

    @button(description=_("Download PDF"), permissions=["view"], icon="download")
    def download(self, request: HttpRequest, object_id: str) -> HttpResponse:
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

    @button(description=_("Run"), permissions=["invoicing.add_billrun"], icon="play_arrow")
    def run(self, request: HttpRequest) -> HttpResponse:
        def perform(form: CycleForm) -> str:
            cycle = parse_cycle(form.cleaned_data["cycle"])
            if cycle_end(cycle) > clock.now():
                raise CycleNotEnded(
                    gettext("This month has not ended; bill it after its last day.")
                )
            tasks.issue_invoices.delay(f"{cycle:%Y-%m}")
            return gettext("The billing of %(cycle)s is under way; reload to see it end.") % {
                "cycle": f"{cycle:%Y-%m}"
            }

        return ask(self, request, title=gettext("Run"), form_class=CycleForm, perform=perform)


@admin.register(TaxRate)
class TaxRateAdmin(ReadOnlyAdmin):
    list_display = ("category", "rate_bp", "valid_from", "valid_until")
    list_filter = ("category",)
    ordering = ("category", "-valid_from")


@admin.register(InvoiceSeries)
class InvoiceSeriesAdmin(ReadOnlyAdmin):
    list_display = ("year", "region", "channel", "last_number")
