"""Batches as nodes sent them, and quarantine with its two buttons: replay and dismiss."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.contrib.filters.admin import AllValuesCheckboxFilter

from config import clock
from config.admin import ReadOnlyAdmin, display
from config.buttons import ConfirmForm, actor_of, ask, button, subject_of
from config.errors import DomainError

from .. import quarantine
from ..models import DroppedDay, QuarantinedEvent, UsageBatch, UsageTally
from .filters import DailyAdmin, NamingAdmin, NodeFilter, ReceivedDayFilter

COUNTS = ("received", "accepted", "duplicate", "conflict", "rejected")
MAY_SETTLE = "usage.change_quarantinedevent"
# One press handles at most this many rows, so that it ends within a request.
MOST_AT_ONCE = 1_000


@admin.register(UsageBatch)
class UsageBatchAdmin(DailyAdmin, NamingAdmin, ReadOnlyAdmin):
    list_display = ("id", "received_at", "node_id", "kind", *COUNTS, "accepted_mt")
    list_filter = (ReceivedDayFilter, NodeFilter, "kind")
    search_ids = ("id",)
    sortable_by = ()
    readonly_fields = ("by_day",)

    @display(description=_("Events by day of use"))
    def by_day(self, batch: UsageBatch) -> SafeString:
        address = "../../../usageevent/?day={}&amp;batch={}"
        rows = UsageTally.objects.filter(batch_id=batch.pk).order_by("day")
        return format_html_join(
            "",
            f'<div><a class="text-primary-600" href="{address}">{{}}</a>: {{}} / {{}}</div>',
            ((row.day, batch.pk, row.day, row.accepted, row.received) for row in rows),
        )


@admin.register(UsageTally)
class UsageTallyAdmin(ReadOnlyAdmin):
    list_display = ("day", "batch_id", *COUNTS, "accepted_mt", "debited_mt", "overage_mt")
    search_ids = ("batch_id",)
    ordering = ("-day", "-batch_id")
    sortable_by = ()


@admin.register(DroppedDay)
class DroppedDayAdmin(ReadOnlyAdmin):
    list_display = ("day", "events", "mt", "dropped_at")


def is_open(event: QuarantinedEvent) -> bool:
    """Whether nobody has settled it yet."""
    return event.state == QuarantinedEvent.State.OPEN


@admin.register(QuarantinedEvent)
class QuarantinedEventAdmin(NamingAdmin, ReadOnlyAdmin):
    """Evidence that was not counted. Replay counts it after its cause is mended."""

    list_display = (
        "received_at",
        "code_label",
        "source",
        "event_id",
        "detail",
        "state_label",
        "settled_by",
    )
    list_filter = (
        ("state", AllValuesCheckboxFilter),
        ("code", AllValuesCheckboxFilter),
        ReceivedDayFilter,
        NodeFilter,
    )
    search_texts = ("code",)
    search_ids = ("batch_id", "id")
    ordering = ("-received_at", "-id")
    sortable_by = ()
    actions = ("replay_selected", "dismiss_selected")
    actions_detail = ("replay", "dismiss")
    fitting = {"replay": is_open, "dismiss": is_open}

    def has_settle_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm(MAY_SETTLE)

    @display(description=_("Code"), label="warning")
    def code_label(self, event: QuarantinedEvent) -> str:
        return event.code

    @display(
        description=_("State"),
        label={"open": "warning", "replayed": "success", "dismissed": "info"},
    )
    def state_label(self, event: QuarantinedEvent) -> tuple[str, str]:
        waiting = event.state == QuarantinedEvent.State.OPEN
        return event.state, gettext("unsettled") if waiting else event.get_state_display()

    @button(description=_("Replay"), permissions=["settle"], icon="replay")
    def replay(self, request: HttpRequest, object_id: str) -> HttpResponse:
        explain = gettext("The event is judged again as it arrived: counted, or refused once more.")
        return self._settle(request, object_id, gettext("Replay"), explain, self._replay)

    @button(
        description=_("Dismiss"),
        permissions=["settle"],
        icon="delete_sweep",
        danger=True,
    )
    def dismiss(self, request: HttpRequest, object_id: str) -> HttpResponse:
        explain = gettext("The event stays as evidence and is never counted.")
        return self._settle(request, object_id, gettext("Dismiss"), explain, self._dismiss)

    @admin.action(description=_("Replay"), permissions=["settle"])
    def replay_selected(self, request: HttpRequest, rows: QuerySet[QuarantinedEvent]) -> None:
        self._settle_many(request, rows, self._replay)

    @admin.action(description=_("Dismiss"), permissions=["settle"])
    def dismiss_selected(self, request: HttpRequest, rows: QuerySet[QuarantinedEvent]) -> None:
        self._settle_many(request, rows, self._dismiss)

    def _settle(
        self,
        request: HttpRequest,
        object_id: str,
        title: str,
        description: str,
        verb: Callable[[HttpRequest, list[int]], str],
    ) -> HttpResponse:
        event = subject_of(self, request, object_id, QuarantinedEvent)

        def perform(form: ConfirmForm) -> str:
            return verb(request, [event.pk])

        return ask(
            self,
            request,
            title=title,
            form_class=ConfirmForm,
            perform=perform,
            subject=event,
            description=description,
        )

    def _settle_many(
        self,
        request: HttpRequest,
        rows: QuerySet[QuarantinedEvent],
        verb: Callable[[HttpRequest, list[int]], str],
    ) -> None:
        still_open = rows.filter(state=QuarantinedEvent.State.OPEN).order_by("id")
        ids = list(still_open.values_list("id", flat=True)[:MOST_AT_ONCE])
        try:
            messages.success(request, verb(request, ids))
        except DomainError as refusal:
            messages.error(request, str(refusal))

    def _replay(self, request: HttpRequest, ids: list[int]) -> str:
        results = quarantine.replay(quarantined_ids=ids, actor=actor_of(request), now=clock.now())
        counts = quarantine.combined(results)
        return gettext(
            "Replayed: %(accepted)d accepted, %(duplicate)d duplicate, "
            "%(conflict)d conflict, %(rejected)d rejected."
        ) % {
            "accepted": counts.accepted,
            "duplicate": counts.duplicate,
            "conflict": counts.conflict,
            "rejected": counts.rejected,
        }

    def _dismiss(self, request: HttpRequest, ids: list[int]) -> str:
        count = quarantine.dismiss(quarantined_ids=ids, actor=actor_of(request), now=clock.now())
        return gettext("Dismissed: %(count)d.") % {"count": count}
