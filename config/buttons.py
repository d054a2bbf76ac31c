"""Buttons of the staff site: they ask, call an activity, and keep who pressed them.

A button asks on a page of its own, so it works without JavaScript. Whoever presses it is the actor
of what follows and stands in the object's history.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextInputWidget

from config.errors import DomainError

FormT = TypeVar("FormT", bound=forms.Form)
ModelT = TypeVar("ModelT", bound=Model)
MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def button(
    *, description: Any, permissions: Sequence[str], icon: str, danger: bool = False
) -> Callable[[MethodT], MethodT]:
    """Offer a method as a button. Without the permissions it is neither shown nor served.

    A permission with a dot is one of Django's; one without is asked of `has_<it>_permission`.
    """
    variant = ActionVariant.DANGER if danger else ActionVariant.DEFAULT
    decorate = action(description=description, permissions=permissions, icon=icon, variant=variant)
    return cast(Callable[[MethodT], MethodT], decorate)


class ConfirmForm(forms.Form):
    """A button that needs nothing but a second look."""


class ReasonForm(forms.Form):
    """Why the button was pressed; kept beside the actor."""

    reason = forms.CharField(
        label=_("Reason"), max_length=500, strip=True, widget=UnfoldAdminTextInputWidget
    )


def ask(
    model_admin: ModelAdmin,
    request: HttpRequest,
    *,
    title: str,
    form_class: type[FormT],
    perform: Callable[[FormT], str | HttpResponse],
    subject: Model | None = None,
    description: str = "",
    danger: bool = False,
    initial: dict[str, Any] | None = None,
    explain: Callable[[DomainError], str] = str,
) -> HttpResponse:
    """Show the button's form on GET; on a valid POST call `perform` and go back to the subject.

    `perform` answers with a sentence for the person, or with a page of its own. A DomainError is
    shown on the form, in the words of `explain`, with what was typed: nothing happened then.
    """
    form = form_class(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            answer = perform(form)
        except DomainError as refusal:
            form.add_error(None, explain(refusal))
        else:
            if subject is not None:
                model_admin.log_change(request, subject, str(title))
            if isinstance(answer, HttpResponse):
                return answer
            messages.success(request, answer)
            return redirect(page_of(model_admin, subject))
    context = frame(model_admin, request, title) | {
        "form": form,
        "description": description,
        "danger": danger,
        "subject": subject,
        "back": page_of(model_admin, subject),
    }
    return TemplateResponse(request, "admin/button.html", context)


def show_secret(
    model_admin: ModelAdmin, request: HttpRequest, *, title: str, name: str, secret: str
) -> HttpResponse:
    """A page with a new key, which is stored as a hash: it can be read here and never again."""
    context = frame(model_admin, request, title) | {
        "name": name,
        "secret": secret,
        "back": page_of(model_admin, None),
    }
    response = TemplateResponse(request, "admin/secret.html", context)
    response["Cache-Control"] = "no-store"
    return response


def frame(model_admin: ModelAdmin, request: HttpRequest, title: str) -> dict[str, Any]:
    """The context every page of the site needs around its own content."""
    around: dict[str, Any] = model_admin.admin_site.each_context(request)
    own = {"title": title, "opts": model_admin.model._meta, "media": model_admin.media}
    return around | own


def page_of(model_admin: ModelAdmin, subject: Model | None) -> str:
    """Where a button leads back to: the page of its subject, or the list."""
    options = model_admin.model._meta
    name = f"{model_admin.admin_site.name}:{options.app_label}_{options.model_name}"
    if subject is None:
        return reverse(f"{name}_changelist")
    return reverse(f"{name}_change", args=[subject.pk])


def subject_of(
    model_admin: ModelAdmin, request: HttpRequest, object_id: object, model: type[ModelT]
) -> ModelT:
    """The object a button was pressed on, or a refusal when it is not there for this person."""
    found = model_admin.get_object(request, str(object_id))
    if not isinstance(found, model):
        raise PermissionDenied
    return found


def actor_of(request: HttpRequest) -> str:
    """Who pressed the button, as the audit keeps it."""
    return str(request.user.get_username())
