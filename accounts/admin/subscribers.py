"""Accounts and subscribers: the life of a subscriber by buttons that ask for a reason."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextInputWidget

from config import clock
from config.admin import ReadOnlyAdmin, ReadOnlyInline, display
from config.buttons import ReasonForm, actor_of, ask, button, subject_of

from .. import lifecycle
from ..models import Account, NumberAssignment, Subscriber, SubscriberTransition

STATE_COLOURS = {
    Subscriber.State.CREATED: "info",
    Subscriber.State.ACTIVE: "success",
    Subscriber.State.SUSPENDED: "warning",
    Subscriber.State.TERMINATED: "danger",
}
MAY_CHANGE = "accounts.change_subscriber"
MAY_TERMINATE = "accounts.delete_subscriber"


class NumberForm(ReasonForm):
    """The new number of a subscriber, and why it changes."""

    msisdn = forms.CharField(
        label=_("New number"), max_length=20, widget=UnfoldAdminTextInputWidget
    )
    field_order = ("msisdn", "reason")


class SubscriberInline(ReadOnlyInline):
    model = Subscriber
    fields = ("msisdn", "state", "created_at")
    show_change_link = True


class NumberInline(ReadOnlyInline):
    model = NumberAssignment
    fields = ("msisdn", "valid_from", "valid_until")


class TransitionInline(ReadOnlyInline):
    model = SubscriberTransition
    fields = ("at", "from_state", "to_state", "actor", "reason")


@admin.register(Account)
class AccountAdmin(ReadOnlyAdmin):
    list_display = ("name", "kind", "tax_number", "created_at")
    list_filter = ("kind",)
    search_texts = ("name", "tax_number", "email")
    search_phones = ("subscribers__msisdn",)
    search_ids = ("id",)
    inlines: ClassVar[list[type[ReadOnlyInline]]] = [SubscriberInline]


@admin.register(Subscriber)
class SubscriberAdmin(ReadOnlyAdmin):
    """The life of a subscriber. Apps above append their inlines: this app knows nothing of them."""

    list_display = ("msisdn", "state_label", "account", "language", "created_at")
    list_filter = ("state",)
    list_select_related = ("account",)
    search_phones = ("msisdn", "numbers__msisdn")
    search_ids = ("id",)
    exclude = ("user",)
    inlines: ClassVar[list[type[ReadOnlyInline]]] = [NumberInline, TransitionInline]
    actions_detail = ("activate", "suspend", "resume", "change_number", "terminate")
    fitting = {
        "activate": lambda row: row.state == Subscriber.State.CREATED,
        "suspend": lambda row: row.state == Subscriber.State.ACTIVE,
        "resume": lambda row: row.state == Subscriber.State.SUSPENDED,
        "change_number": lambda row: row.state != Subscriber.State.TERMINATED,
        "terminate": lambda row: row.state != Subscriber.State.TERMINATED,
    }

    @display(description=_("State"), ordering="state", label=STATE_COLOURS)
    def state_label(self, subscriber: Subscriber) -> tuple[str, str]:
        return subscriber.state, subscriber.get_state_display()

    @button(description=_("Activate"), permissions=[MAY_CHANGE], icon="play_arrow")
    def activate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._step(request, object_id, gettext("Activate"), lifecycle.activate)

    @button(description=_("Suspend"), permissions=[MAY_CHANGE], icon="pause")
    def suspend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._step(request, object_id, gettext("Suspend"), lifecycle.suspend)

    @button(description=_("Resume"), permissions=[MAY_CHANGE], icon="resume")
    def resume(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._step(request, object_id, gettext("Resume"), lifecycle.resume)

    @button(
        description=_("Terminate"),
        permissions=[MAY_TERMINATE],
        icon="block",
        danger=True,
    )
    def terminate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._step(
            request, object_id, gettext("Terminate"), lifecycle.terminate, danger=True
        )

    @button(description=_("Change number"), permissions=[MAY_CHANGE], icon="swap_horiz")
    def change_number(self, request: HttpRequest, object_id: str) -> HttpResponse:
        subscriber = subject_of(self, request, object_id, Subscriber)

        def perform(form: NumberForm) -> str:
            changed = lifecycle.change_number(
                subscriber_id=subscriber.pk,
                msisdn=form.cleaned_data["msisdn"],
                actor=actor_of(request),
                reason=form.cleaned_data["reason"],
                now=clock.now(),
            )
            return gettext("The number is now %(number)s.") % {"number": changed.msisdn}

        return ask(
            self,
            request,
            title=gettext("Change number"),
            form_class=NumberForm,
            perform=perform,
            subject=subscriber,
            description=gettext("Balance, subscription and history stay with the subscriber."),
        )

    def _step(
        self, request: HttpRequest, object_id: str, title: str, verb: Any, danger: bool = False
    ) -> HttpResponse:
        subscriber = subject_of(self, request, object_id, Subscriber)

        def perform(form: ReasonForm) -> str:
            moved: Subscriber = verb(
                subscriber_id=subscriber.pk,
                actor=actor_of(request),
                reason=form.cleaned_data["reason"],
                now=clock.now(),
            )
            return gettext("%(number)s is now: %(state)s.") % {
                "number": moved.msisdn,
                "state": moved.get_state_display(),
            }

        return ask(
            self,
            request,
            title=title,
            form_class=ReasonForm,
            perform=perform,
            subject=subscriber,
            danger=danger,
        )


@admin.register(NumberAssignment)
class NumberAssignmentAdmin(ReadOnlyAdmin):
    list_display = ("msisdn", "subscriber", "valid_from", "valid_until")
    list_select_related = ("subscriber",)
    search_phones = ("msisdn",)
    search_ids = ("subscriber_id",)


@admin.register(SubscriberTransition)
class SubscriberTransitionAdmin(ReadOnlyAdmin):
    list_display = ("at", "subscriber", "from_state", "to_state", "actor", "reason")
    list_select_related = ("subscriber",)
    list_filter = ("to_state",)
    search_texts = ("actor",)
    search_phones = ("subscriber__msisdn",)
    search_ids = ("subscriber_id",)
