"""Usage events: one day at a time, since a day is a partition and nobody counts the table."""

from typing import Any
from uuid import uuid4

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from config import clock
from config.admin import ReadOnlyAdmin, display
from config.buttons import ReasonForm, actor_of, ask, button, subject_of
from config.columns import link_to
from config.formatting import exact_tokens

from .. import corrections
from ..amended import as_they_stand
from ..models import Amendment, LedgerEntry, Overage, UsageEvent
from ..normalising import MAX_TOKENS, Counts
from .filters import BatchFilter, DailyAdmin, DayFilter, ModelFilter, NamingAdmin, NodeFilter

MAY_CORRECT = "usage.change_usageevent"


def _count(label: Any) -> forms.IntegerField:
    return forms.IntegerField(
        label=label, min_value=0, max_value=MAX_TOKENS, widget=UnfoldAdminIntegerFieldWidget
    )


class AmendForm(ReasonForm):
    """What the event should count, and a key, so that a form sent twice amends once."""

    input = _count(_("Input"))
    cached = _count(_("Cached input"))
    output = _count(_("Output"))
    reasoning = _count(_("Reasoning"))
    key = forms.UUIDField(widget=forms.HiddenInput, initial=uuid4)


def amend_form(event: UsageEvent) -> type[AmendForm]:
    """The form with what the event counts now."""
    (now,) = as_they_stand([event])
    counts = {
        "input": now.input_tokens,
        "cached": now.cached_tokens,
        "output": now.output_tokens,
        "reasoning": now.reasoning_tokens,
    }

    class Filled(AmendForm):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **(more | {"initial": counts}))

    return Filled


def stands(event: UsageEvent) -> bool:
    """Whether it has not been voided."""
    return not Amendment.objects.filter(event_id=event.pk, kind=Amendment.Kind.VOID).exists()


@admin.register(UsageEvent)
class UsageEventAdmin(DailyAdmin, NamingAdmin, ReadOnlyAdmin):
    """Search: a subscriber's number or id, an event's source, its id, or both as source/id."""

    list_display = (
        "occurred_at",
        "subscriber_id",
        "model_id",
        "input_tokens",
        "cached_tokens",
        "output_tokens",
        "reasoning_tokens",
        "mt",
        "event_id",
        "late_label",
    )
    list_display_links = ("occurred_at",)
    list_filter = (DayFilter, ModelFilter, NodeFilter, BatchFilter, "late")
    search_texts = ("source", "event_id")
    search_ids = ("subscriber_id",)
    search_help_text = _("A phone number, a source, an event's id, or source/id.")
    ordering = ("-occurred_at",)
    sortable_by = ("occurred_at",)
    readonly_fields = ("charged", "amended")
    actions_detail = ("amend", "void")
    fitting = {"amend": stands, "void": stands}

    def has_correct_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm(MAY_CORRECT)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        source, slash, event_id = search_term.strip().rpartition("/")
        if slash:
            return queryset.filter(source=source, event_id=event_id), False
        found: tuple[QuerySet[Any], bool] = super().get_search_results(
            request, queryset, search_term
        )
        return found

    @display(description=_("Late"), label="warning")
    def late_label(self, event: UsageEvent) -> str:
        return gettext("late") if event.late else ""

    @display(description=_("Charged to"))
    def charged(self, event: UsageEvent) -> SafeString:
        """Every token of the event and its amendments: debits and refunds of buckets, and what
        lies beyond them."""
        numbers = [event.pk, *(one.pk for one in _amendments(event))]
        rows: list[tuple[str, object]] = [
            (
                exact_tokens(-entry.amount_mt),
                link_to("usage_bucket", entry.bucket_id, f"{_('bucket')} {entry.bucket_id}"),
            )
            for entry in LedgerEntry.objects.filter(event_id__in=numbers).order_by("id")
        ]
        rows += [
            (exact_tokens(beyond.mt), _("priced overage") if beyond.priced else _("uncovered"))
            for beyond in Overage.objects.filter(
                subscriber_id=event.subscriber_id, event_id__in=numbers
            ).order_by("id")
        ]
        return format_html_join("", "<div>{}: {}</div>", rows)

    @display(description=_("Amendments"))
    def amended(self, event: UsageEvent) -> SafeString:
        """What was changed of the event, by whom and why."""
        rows = (
            (
                link_to("usage_amendment", one.pk, one.get_kind_display()),
                exact_tokens(one.mt),
                one.actor,
                one.reason,
            )
            for one in _amendments(event)
        )
        return format_html_join("", "<div>{}: {} ({}: {})</div>", rows)

    @button(description=_("Amend"), permissions=["correct"], icon="edit_note")
    def amend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        event = subject_of(self, request, object_id, UsageEvent)

        def perform(form: AmendForm) -> str:
            values = form.cleaned_data
            amendment = corrections.amend(
                event_id=event.pk,
                counts=Counts(*(values[kind] for kind in Counts._fields)),
                actor=actor_of(request),
                reason=values["reason"],
                key=f"staff:{values['key']}",
                now=clock.now(),
            )
            return gettext("Amended by %(tokens)s standard tokens.") % {
                "tokens": exact_tokens(amendment.mt)
            }

        return ask(
            self,
            request,
            title=gettext("Amend"),
            form_class=amend_form(event),
            perform=perform,
            subject=event,
            description=gettext(
                "Say what the event counts. More is charged like new usage of its time, "
                "less returns to whoever paid; the report of the node stays as it is."
            ),
        )

    @button(description=_("Void"), permissions=["correct"], icon="undo", danger=True)
    def void(self, request: HttpRequest, object_id: str) -> HttpResponse:
        event = subject_of(self, request, object_id, UsageEvent)

        def perform(form: ReasonForm) -> str:
            amendment = corrections.void(
                event_id=event.pk,
                actor=actor_of(request),
                reason=form.cleaned_data["reason"],
                key=f"staff:void:{event.pk}",
                now=clock.now(),
            )
            return gettext("Taken back: %(tokens)s standard tokens.") % {
                "tokens": exact_tokens(-amendment.mt)
            }

        return ask(
            self,
            request,
            title=gettext("Void"),
            form_class=ReasonForm,
            perform=perform,
            subject=event,
            description=gettext(
                "The event counts nothing any more. Its tokens return to the buckets that paid, "
                "and expire there if these are closed; what was billed becomes a credit."
            ),
            danger=True,
        )


def _amendments(event: UsageEvent) -> list[Amendment]:
    return list(Amendment.objects.filter(event_id=event.pk).order_by("id"))
