"""Models and their weights: made by buttons, kept as history."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

from config import clock
from config.admin import ReadOnlyAdmin, ReadOnlyInline
from config.buttons import ask, button, subject_of

from .. import weights
from ..models import InferenceModel, Weight
from ..periods import day_start
from .asking import DayField

MAY_CHANGE_MODEL = "usage.change_inferencemodel"


class ModelForm(forms.Form):
    """A model as nodes name it."""

    code = forms.CharField(label=_("Code"), max_length=100, widget=UnfoldAdminTextInputWidget)
    name = forms.CharField(label=_("Name"), max_length=100, widget=UnfoldAdminTextInputWidget)
    aliases = forms.CharField(
        label=_("Aliases"),
        required=False,
        help_text=_("Other spellings that engines report, separated by commas."),
        widget=UnfoldAdminTextInputWidget,
    )


def thousandths(label: Any) -> forms.IntegerField:
    """A field for one weight."""
    return forms.IntegerField(
        label=label, min_value=0, max_value=1_000_000, widget=UnfoldAdminIntegerFieldWidget
    )


class WeightForm(forms.Form):
    """A model's weights in thousandths, from the start of a billing-zone day on."""

    input_milli = thousandths(_("Input (thousandths)"))
    cached_milli = thousandths(_("Cached input (thousandths)"))
    output_milli = thousandths(_("Output (thousandths)"))
    reasoning_milli = thousandths(_("Reasoning (thousandths)"))
    valid_from = DayField(label=_("Valid from (day, Asia/Shanghai)"))


class WeightInline(ReadOnlyInline):
    model = Weight
    fields = (
        "valid_from",
        "valid_until",
        "input_milli",
        "cached_milli",
        "output_milli",
        "reasoning_milli",
        "withdrawn_at",
    )
    show_change_link = True


@admin.register(InferenceModel)
class InferenceModelAdmin(ReadOnlyAdmin):
    list_display = ("code", "name", "aliases")
    search_texts = ("code", "name")
    ordering = ("code",)
    inlines = (WeightInline,)
    actions_list = ("put",)
    actions_detail = ("put_weight",)

    @button(description=_("Add a model"), permissions=["usage.add_inferencemodel"], icon="add")
    def put(self, request: HttpRequest) -> HttpResponse:
        def perform(form: ModelForm) -> str:
            aliases = [text.strip() for text in form.cleaned_data["aliases"].split(",")]
            model = weights.put_model(
                code=form.cleaned_data["code"],
                name=form.cleaned_data["name"],
                aliases=[alias for alias in aliases if alias],
                now=clock.now(),
            )
            self.log_addition(request, model, gettext("Add a model"))
            return gettext("%(code)s is there; now give it a weight.") % {"code": model.code}

        return ask(
            self, request, title=gettext("Add a model"), form_class=ModelForm, perform=perform
        )

    @button(description=_("New weight"), permissions=[MAY_CHANGE_MODEL], icon="scale")
    def put_weight(self, request: HttpRequest, object_id: str) -> HttpResponse:
        model = subject_of(self, request, object_id, InferenceModel)

        def perform(form: WeightForm) -> str:
            values = form.cleaned_data
            weights.put_weight(
                model_code=model.code,
                input_milli=values["input_milli"],
                cached_milli=values["cached_milli"],
                output_milli=values["output_milli"],
                reasoning_milli=values["reasoning_milli"],
                valid_from=day_start(values["valid_from"]),
                now=clock.now(),
            )
            return gettext("The weight holds from %(day)s on.") % {"day": values["valid_from"]}

        return ask(
            self,
            request,
            title=gettext("New weight"),
            form_class=WeightForm,
            perform=perform,
            subject=model,
            description=gettext("The weight in force ends where the new one begins."),
        )
