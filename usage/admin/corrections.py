"""Amendments, reratings (dry run, then apply) and weights; a wrong weight can be corrected."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminSelectWidget

from config import clock
from config.admin import ReadOnlyAdmin, display
from config.buttons import (
    ConfirmForm,
    ReasonForm,
    actor_of,
    ask,
    button,
    page_of,
    subject_of,
)
from config.columns import link_to
from config.formatting import exact_tokens

from .. import rerating, tasks, weights
from ..models import Amendment, InferenceModel, Rerating, Weight
from ..periods import day_start
from .asking import DayField
from .filters import ModelFilter, NamingAdmin
from .weighing import thousandths

MAY_CORRECT_WEIGHT = "usage.change_weight"
MAY_RATE_AGAIN = "usage.add_rerating"
MAY_APPLY = "usage.change_rerating"


@admin.register(Amendment)
class AmendmentAdmin(NamingAdmin, ReadOnlyAdmin):
    list_display = (
        "recorded_at",
        "kind",
        "subscriber_link",
        "event_link",
        "mt",
        "actor",
        "reason",
    )
    list_filter = ("kind", ModelFilter)
    search_ids = ("event_id", "subscriber_id", "batch_id", "id")
    ordering = ("-id",)
    sortable_by = ()

    @display(description=_("Subscriber"))
    def subscriber_link(self, amendment: Any) -> SafeString:
        return link_to("accounts_subscriber", amendment.subscriber_id, amendment.number)

    @display(description=_("Event"))
    def event_link(self, amendment: Amendment) -> SafeString:
        return link_to("usage_usageevent", amendment.event_id, amendment.event_id)


class RateAgainForm(ReasonForm):
    """A model and the days to rate again."""

    model = forms.ModelChoiceField(
        label=_("Model"),
        queryset=InferenceModel.objects.order_by("code"),
        to_field_name="code",
        widget=UnfoldAdminSelectWidget,
    )
    first = DayField(label=_("From day (Asia/Shanghai)"))
    end = DayField(label=_("To day, which is not included"))


@admin.register(Rerating)
class ReratingAdmin(NamingAdmin, ReadOnlyAdmin):
    """A dry run moves nothing; its report says what applying it would do."""

    list_display = ("made_at", "model_code", "start", "end", "state_label", "difference", "actor")
    sortable_by = ()
    exclude = ("report",)
    readonly_fields = ("totals", "by_subscriber")
    actions_list = ("rate_again",)
    actions_detail = ("apply",)
    fitting = {"apply": lambda found: found.state == Rerating.State.DRY}

    def has_rate_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm(MAY_RATE_AGAIN)

    def has_apply_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm(MAY_APPLY)

    @display(description=_("Model"))
    def model_code(self, found: Any) -> str:
        return str(found.model_code)

    @display(
        description=_("State"), label={"dry": "info", "applying": "warning", "applied": "success"}
    )
    def state_label(self, found: Rerating) -> tuple[str, str]:
        return found.state, found.get_state_display()

    @display(description=_("Difference"))
    def difference(self, found: Rerating) -> str:
        return exact_tokens(found.report.get("difference_mt", 0))

    @display(description=_("Totals"))
    def totals(self, found: Rerating) -> SafeString:
        report = found.report
        rows = [
            (_("Events"), report.get("events", 0)),
            (_("Events that change"), report.get("changed", 0)),
            (_("Subscribers that differ"), report.get("subscribers", 0)),
            (_("Standard tokens so far"), exact_tokens(report.get("former_mt", 0))),
            (_("Standard tokens rated again"), exact_tokens(report.get("mt", 0))),
            (_("Difference"), exact_tokens(report.get("difference_mt", 0))),
        ]
        if applied := report.get("applied"):
            rows += [
                (_("Events changed"), applied["changed"]),
                (_("Difference applied"), exact_tokens(applied["difference_mt"])),
            ]
        return format_html_join("", "<div>{}: {}</div>", rows)

    @display(description=_("The largest differences"))
    def by_subscriber(self, found: Rerating) -> SafeString:
        rows = (
            (
                link_to("accounts_subscriber", row["subscriber"], row["subscriber"]),
                exact_tokens(row["former_mt"]),
                exact_tokens(row["mt"]),
                exact_tokens(row["difference_mt"]),
            )
            for row in found.report.get("by_subscriber", [])[:100]
        )
        return format_html_join("", "<div>{}: {} → {} ({})</div>", rows)

    @button(description=_("Rate a period again"), permissions=["rate"], icon="calculate")
    def rate_again(self, request: HttpRequest) -> HttpResponse:
        def perform(form: RateAgainForm) -> HttpResponse:
            values = form.cleaned_data
            found = rerating.dry_run(
                model_code=values["model"].code,
                start=day_start(values["first"]),
                end=day_start(values["end"]),
                actor=actor_of(request),
                reason=values["reason"],
                now=clock.now(),
            )
            self.log_addition(request, found, gettext("Rate a period again"))
            return redirect(page_of(self, found))

        return ask(
            self,
            request,
            title=gettext("Rate a period again"),
            form_class=RateAgainForm,
            perform=perform,
            description=gettext("A dry run first: it reports the differences and moves nothing."),
        )

    @button(description=_("Apply"), permissions=["apply"], icon="check", danger=True)
    def apply(self, request: HttpRequest, object_id: str) -> HttpResponse:
        found = subject_of(self, request, object_id, Rerating)

        def perform(form: ConfirmForm) -> str:
            rerating.begin(rerating_id=found.pk, actor=actor_of(request), now=clock.now())
            tasks.apply_rerating.delay(found.pk)
            return gettext("The period is being rated again in the background.")

        return ask(
            self,
            request,
            title=gettext("Apply"),
            form_class=ConfirmForm,
            perform=perform,
            subject=found,
            description=gettext(
                "Every event of the report gets an amendment with its difference. "
                "What is charged less returns to whoever paid."
            ),
            danger=True,
        )


class CorrectWeightForm(ReasonForm):
    """What the weight should have been, in thousandths."""

    input_milli = thousandths(_("Input (thousandths)"))
    cached_milli = thousandths(_("Cached input (thousandths)"))
    output_milli = thousandths(_("Output (thousandths)"))
    reasoning_milli = thousandths(_("Reasoning (thousandths)"))


@admin.register(Weight)
class WeightAdmin(ReadOnlyAdmin):
    list_display = (
        "model",
        "input_milli",
        "cached_milli",
        "output_milli",
        "reasoning_milli",
        "valid_from",
        "valid_until",
        "withdrawn_at",
    )
    list_select_related = ("model",)
    list_filter = ("model",)
    actions_detail = ("correct",)
    fitting = {"correct": lambda weight: weight.withdrawn_at is None}

    def has_correct_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm(MAY_CORRECT_WEIGHT)

    @button(description=_("Correct"), permissions=["correct"], icon="scale")
    def correct(self, request: HttpRequest, object_id: str) -> HttpResponse:
        weight = subject_of(self, request, object_id, Weight)

        def perform(form: CorrectWeightForm) -> str:
            weights.correct_weight(
                weight_id=weight.pk, actor=actor_of(request), now=clock.now(), **form.cleaned_data
            )
            return gettext("The weight is withdrawn and another one stands in its place.")

        return ask(
            self,
            request,
            title=gettext("Correct"),
            form_class=CorrectWeightForm,
            perform=perform,
            subject=weight,
            description=gettext(
                "For a weight that was wrong from its first day. Usage from now on is rated by "
                "the new one; rate the past again afterwards."
            ),
            danger=True,
        )
