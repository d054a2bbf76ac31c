"""The proof that not one token was lost: for any period, on a page; and the stored results."""

from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from config import clock
from config.admin import ReadOnlyAdmin, display
from config.buttons import ConfirmForm, ask, button, frame
from config.formatting import exact_tokens, grouped, yuan
from usage import proof
from usage.admin.asking import DayField
from usage.periods import InvalidPeriod, cycle_of, day_of, previous_cycle

from .. import assurance, node_assurance
from ..models import AssuranceResult
from . import by_node, differing

# A longer period is proven by the command: a page must answer within a request.
MOST_DAYS = 92


class PeriodForm(forms.Form):
    """Billing-zone days [from, to)."""

    start = DayField(label=_("From"))
    end = DayField(label=_("To (not included)"))

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        start, end = values.get("start"), values.get("end")
        if start and end and not start < end <= start + timedelta(days=MOST_DAYS):
            raise forms.ValidationError(
                _("Choose a period of 1 to %(days)d days."), params={"days": MOST_DAYS}
            )
        return values


@admin.register(AssuranceResult)
class AssuranceResultAdmin(ReadOnlyAdmin):
    list_display = ("day", "until", "proven_label", "made_at")
    list_filter = ("proven",)
    ordering = ("-made_at",)
    actions_list = ("prove", "by_node", "verify")

    @display(description=_("From"))
    def day(self, result: AssuranceResult) -> date:
        return day_of(result.period_start)

    @display(description=_("To (not included)"))
    def until(self, result: AssuranceResult) -> date:
        return day_of(result.period_end)

    @display(
        description=_("Result"),
        label={"proven": "success", "differs": "danger"},
    )
    def proven_label(self, result: AssuranceResult) -> tuple[str, str]:
        return ("proven", gettext("proven")) if result.proven else ("differs", gettext("differs"))

    @button(description=_("Prove a period"), permissions=["view"], icon="balance")
    def prove(self, request: HttpRequest) -> HttpResponse:
        """GET only: the proof reads and stores nothing."""
        today = day_of(clock.now())
        first = previous_cycle(cycle_of(clock.now()))
        form = PeriodForm(request.GET if "start" in request.GET else None)
        if not form.is_bound:
            form = PeriodForm(initial={"start": first, "end": today + timedelta(days=1)})
        report: dict[str, Any] | None = None
        if form.is_bound and form.is_valid():
            report = assurance.assure(
                start=form.cleaned_data["start"], end=form.cleaned_data["end"]
            )
        context = frame(self, request, gettext("Prove a period")) | {
            "form": form,
            "report": report,
            "identities": identities(report) if report else [],
            "differences": differing.rows(report["differences"]) if report else [],
            "totals": totals(report) if report else [],
            "latest": AssuranceResult.objects.order_by("-made_at")[:5],
        }
        return TemplateResponse(request, "admin/invoicing/assurance.html", context)

    @button(description=_("Compare with nodes"), permissions=["view"], icon="dns")
    def by_node(self, request: HttpRequest) -> HttpResponse:
        """GET only, as the proof of a period."""
        today = day_of(clock.now())
        form = PeriodForm(request.GET if "start" in request.GET else None)
        if not form.is_bound:
            form = PeriodForm(initial={"start": today, "end": today + timedelta(days=1)})
        report: dict[str, Any] | None = None
        if form.is_bound and form.is_valid():
            try:
                report = node_assurance.assure_nodes(
                    start=form.cleaned_data["start"], end=form.cleaned_data["end"]
                )
            except InvalidPeriod as refusal:
                form.add_error(None, refusal.detail)
        context = frame(self, request, gettext("Compare with nodes")) | {
            "form": form,
            "report": report,
            "tables": by_node.tables(report) if report else [],
            "differences": differing.rows(report["differences"]) if report else [],
            "amendments": by_node.amendments(report) if report else [],
        }
        return TemplateResponse(request, "admin/invoicing/node_assurance.html", context)

    @button(description=_("Verify the ledger"), permissions=["view"], icon="fact_check")
    def verify(self, request: HttpRequest) -> HttpResponse:
        def perform(form: ConfirmForm) -> str | HttpResponse:
            differences = proof.verify()
            if not differences:
                return gettext(
                    "Proven: every bucket equals its ledger, every event is accounted for."
                )
            context = frame(self, request, gettext("Verify the ledger")) | {
                "differences": differing.rows([asdict(one) for one in differences])
            }
            return TemplateResponse(request, "admin/invoicing/differences.html", context)

        return ask(
            self,
            request,
            title=gettext("Verify the ledger"),
            form_class=ConfirmForm,
            perform=perform,
            description=gettext(
                "Compares every bucket with the sum of its ledger and every batch with its "
                "events. On much data use the command verify_ledger instead."
            ),
        )


def identities(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The equations of the proof with both sides, for people."""
    events = report["accepted"] + report["duplicate"] + report["conflict"] + report["rejected"]
    tokens = report["debited_mt"] + report["overage_mt"] + report["uncovered_mt"]
    rows = [
        (
            _("Events received = accepted + duplicate + conflict + rejected"),
            report["received"],
            events,
            grouped,
        ),
        (
            _("Tokens accepted = debited + priced overage + uncovered"),
            report["accepted_mt"],
            tokens,
            exact_tokens,
        ),
        (
            _("Priced overage = invoiced + not yet invoiced"),
            report["priced_mt"],
            report["invoiced_mt"] + report["not_invoiced_mt"],
            exact_tokens,
        ),
        (
            _("Priced money = invoiced + not yet invoiced"),
            report["priced_fen"],
            report["invoiced_fen"] + report["not_invoiced_fen"],
            yuan,
        ),
        (
            _("Net + VAT = gross"),
            report["net_fen"] + report["vat_fen"],
            report["gross_fen"],
            yuan,
        ),
    ]
    return [
        {"name": name, "left": show(left), "right": show(right), "holds": left == right}
        for name, left, right, show in rows
    ]


def totals(report: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The plain numbers of the report by unit; the unit ends a number's key."""
    groups: dict[str, list[tuple[str, str]]] = {"events": [], "mt": [], "fen": []}
    for key, value in report.items():
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        name, _sep, unit = key.rpartition("_")
        unit = unit if unit in groups else "events"
        show = {"mt": exact_tokens, "fen": yuan}.get(unit, grouped)
        groups[unit].append((str(TOTALS.get(name if name else key, key)), show(value)))
    titles = {"events": gettext("Counts"), "mt": gettext("Tokens"), "fen": gettext("Money")}
    return [(titles[unit], rows) for unit, rows in groups.items() if rows]


TOTALS = {
    "received": _("received"),
    "accepted": _("accepted"),
    "duplicate": _("duplicate"),
    "conflict": _("conflict"),
    "rejected": _("rejected"),
    "debited": _("debited"),
    "overage": _("priced overage"),
    "uncovered": _("uncovered"),
    "priced": _("priced"),
    "invoiced": _("invoiced"),
    "not_invoiced": _("not yet invoiced"),
    "charged": _("charged"),
    "invoices": _("invoices"),
    "net": _("net"),
    "vat": _("VAT"),
    "gross": _("gross"),
}
