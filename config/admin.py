"""The frame of the staff site: what its pages share. Facts are looked at here, never edited.

Buttons call the activities. A button asks on a page of its own, so it works without JavaScript, and
whoever presses it is the actor of what follows and stands in the object's history.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.checks import ModelAdminChecks
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin, TabularInline
from unfold.widgets import UnfoldAdminTextInputWidget

from config.columns import column
from config.errors import DomainError

# More rows than this are never counted: on a large table a count costs more than the page itself.
COUNT_LIMIT = 10_000

FormT = TypeVar("FormT", bound=forms.Form)
ModelT = TypeVar("ModelT", bound=Model)


class BoundedPaginator(Paginator[Any]):
    """Counts up to COUNT_LIMIT rows and then says "or more"; later rows are found by filters."""

    template_name = "admin/pagination_bounded.html"
    limit = COUNT_LIMIT

    @cached_property
    def count(self) -> int:
        rows = self.object_list
        if not isinstance(rows, QuerySet):
            return len(rows)
        return int(rows.order_by().values("pk")[: self.limit].count())


class ExactSearch(ModelAdmin):  # type: ignore[misc]
    """Searches by equality, which an index answers; digits are also tried as a phone number."""

    # Unfold's own checks query the permissions' table, which an empty database does not have yet.
    checks_class = ModelAdminChecks
    search_texts: ClassVar[Sequence[str]] = ()
    search_phones: ClassVar[Sequence[str]] = ()
    search_ids: ClassVar[Sequence[str]] = ()

    def get_search_fields(self, request: HttpRequest) -> Sequence[str]:
        return (*self.search_texts, *self.search_phones, *self.search_ids)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        found = Q(pk__in=[])
        for field in self.search_texts:
            found |= Q(**{field: term})
        for field in self.search_phones:
            found |= Q(**{f"{field}__in": phone_spellings(term)})
        for field in self.search_ids:
            if is_id(term):
                found |= Q(**{field: int(term)})
        return queryset.filter(found), False


class ReadOnlyAdmin(ExactSearch):
    """Staff look here; what they may change they change by buttons, which call the activities."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    list_filter_submit = True
    list_filter_sheet = True
    list_fullwidth = True
    list_max_show_all = 0
    ordering: ClassVar[Sequence[str]] = ("-pk",)
    # Which rows a button of `actions_detail` fits; it is hidden from others. The activity refuses.
    fitting: ClassVar[dict[str, Callable[[Any], bool]]] = {}

    def get_list_display(self, request: HttpRequest) -> Sequence[Any]:
        return columns(self.model, super().get_list_display(request))

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Sequence[Any]:
        return columns(self.model, super().get_fields(request, obj))

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Sequence[Any]:
        own = super().get_readonly_fields(request, obj)
        plain = (field.name for field in self.model._meta.concrete_fields)
        return [*own, *(shown for shown in columns(self.model, plain) if callable(shown))]

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        offered: list[Any] = super().get_actions_detail(request, object_id)
        if not self.fitting:
            return offered
        row = self.get_object(request, str(object_id))
        prefix = f"{self.model._meta.app_label}_{self.model._meta.model_name}_"
        return [
            button
            for button in offered
            if row is not None
            and self.fitting.get(button.action_name.removeprefix(prefix), _always)(row)
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ReadOnlyInline(TabularInline):  # type: ignore[misc]
    """Rows of a parent, twenty a page, newest first."""

    extra = 0
    per_page = 20
    can_delete = False
    hide_title = True
    ordering: ClassVar[Sequence[str]] = ("-pk",)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Sequence[Any]:
        return columns(self.model, super().get_fields(request, obj))

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Sequence[Any]:
        own = super().get_readonly_fields(request, obj)
        shown = columns(self.model, self.fields or ())
        return [*own, *(each for each in shown if callable(each))]

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def columns(model: type[Model], names: Iterable[Any]) -> list[Any]:
    """The columns with their amounts in units for people; callables pass as they are."""
    return [column(model, name) if isinstance(name, str) else name for name in names]


def _always(row: Model) -> bool:
    return True


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
) -> HttpResponse:
    """Show the button's form on GET; on a valid POST call `perform` and go back to the subject.

    `perform` answers with a sentence for the person, or with a page of its own. A DomainError is
    shown on the form: nothing happened then.
    """
    form = form_class(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            answer = perform(form)
        except DomainError as refusal:
            form.add_error(None, str(refusal))
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
    return model_admin.admin_site.each_context(request) | {
        "title": title,
        "opts": model_admin.model._meta,
        "media": model_admin.media,
    }


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


def link_to(viewname: str, key: object, text: object) -> SafeString:
    """A link to the page of a row; `viewname` is like "accounts_subscriber"."""
    address = reverse(f"admin:{viewname}_change", args=[key])
    return format_html('<a class="text-primary-600" href="{}">{}</a>', address, text)


def phone_spellings(term: str) -> Iterable[str]:
    """The E.164 numbers that a searched text may mean."""
    digits = term.replace(" ", "").replace("-", "")
    return [digits, f"+{digits.lstrip('+')}", f"+86{digits}"]


def is_id(term: str) -> bool:
    """Whether a searched text can be a row's number."""
    return term.isascii() and term.isdecimal() and len(term) <= 18
