"""API keys, and the messages that wait to be sent or were sent."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminTextInputWidget

from config import clock
from config.admin import ReadOnlyAdmin, display
from config.buttons import ConfirmForm, ask, button, show_secret, subject_of

from .. import keys
from ..models import ApiKey, OutboxMessage


class StaffKeyForm(forms.Form):
    """A key for a carrier's own system: its name and what it may do."""

    name = forms.CharField(label=_("Name"), max_length=100, widget=UnfoldAdminTextInputWidget)
    scopes = forms.MultipleChoiceField(
        label=_("Scopes"),
        choices=[(scope, scope) for scope in keys.SCOPES[ApiKey.Kind.STAFF]],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )


def ask_to_revoke(
    model_admin: ReadOnlyAdmin, request: HttpRequest, *, subject: Model, key_id: int
) -> HttpResponse:
    """The page that asks whether to revoke a key, shown for it or for what holds it."""

    def perform(form: ConfirmForm) -> str:
        keys.revoke(key_id=key_id, now=clock.now())
        return gettext("The key is revoked.")

    return ask(
        model_admin,
        request,
        title=gettext("Revoke"),
        form_class=ConfirmForm,
        perform=perform,
        subject=subject,
        description=gettext("Whoever uses this key is refused from now on."),
        danger=True,
    )


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    """Keys of all kinds. A staff key can do what a role can, so only superusers issue one."""

    list_display = ("public_id", "kind", "name", "subscriber", "created_at", "last_used_at", "live")
    list_filter = ("kind",)
    list_select_related = ("subscriber",)
    search_texts = ("public_id",)
    search_phones = ("subscriber__msisdn",)
    exclude = ("secret_hash",)
    actions_list = ("issue_staff_key",)
    actions_detail = ("revoke",)
    fitting = {"revoke": lambda key: key.revoked_at is None}

    @display(description=_("Live"), boolean=True)
    def live(self, key: ApiKey) -> bool:
        return key.revoked_at is None and (key.expires_at is None or key.expires_at > clock.now())

    def has_superuser_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    @button(description=_("Issue a staff key"), permissions=["superuser"], icon="key")
    def issue_staff_key(self, request: HttpRequest) -> HttpResponse:
        def perform(form: StaffKeyForm) -> HttpResponse:
            key, token = keys.issue_key(
                kind=ApiKey.Kind.STAFF,
                now=clock.now(),
                user_id=request.user.pk,
                name=form.cleaned_data["name"],
                scopes=form.cleaned_data["scopes"],
            )
            self.log_addition(request, key, gettext("Issue a staff key"))
            return show_secret(
                self, request, title=gettext("New staff key"), name=key.name, secret=token
            )

        return ask(
            self,
            request,
            title=gettext("Issue a staff key"),
            form_class=StaffKeyForm,
            perform=perform,
        )

    @button(
        description=_("Revoke"),
        permissions=["superuser"],
        icon="key_off",
        danger=True,
    )
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key = subject_of(self, request, object_id, ApiKey)
        return ask_to_revoke(self, request, subject=key, key_id=key.pk)


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "recipient", "template", "state_label", "attempts", "sent_at")
    list_filter = ("state", "template")
    search_texts = ("key",)
    search_phones = ("recipient",)

    @display(
        description=_("State"), label={"waiting": "info", "sent": "success", "failed": "danger"}
    )
    def state_label(self, message: OutboxMessage) -> tuple[str, str]:
        return message.state, message.get_state_display()
