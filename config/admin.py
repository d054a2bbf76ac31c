"""The frame of the staff site: what its pages share. Facts are looked at here, never edited."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar, TypeVar, cast

from django.contrib import admin
from django.contrib.admin.checks import ModelAdminChecks
from django.contrib.admin.utils import label_for_field
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import cached_property
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display as unfold_display

from config.columns import column, link_to

# More rows than this are never counted: on a large table a count costs more than the page itself.
COUNT_LIMIT = 10_000

MethodT = TypeVar("MethodT", bound=Callable[..., Any])


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

    @classmethod
    def offer(cls, pressed: Callable[..., HttpResponse], fits: Callable[[Any], bool]) -> None:
        """Add a button from an app above, of which the page's own app knows nothing."""
        setattr(cls, pressed.__name__, pressed)
        cls.actions_detail = (*cls.actions_detail, pressed.__name__)
        cls.fitting = cls.fitting | {pressed.__name__: fits}

    def get_list_display(self, request: HttpRequest) -> Sequence[Any]:
        return columns(self.model, super().get_list_display(request))

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Sequence[Any]:
        # A shown column stands in both lists that Django joins here; it is wanted once.
        return list(dict.fromkeys(columns(self.model, super().get_fields(request, obj))))

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
    """Rows of a parent, twenty a page, newest first; `show_change_link` makes the first column
    lead to the row's own page."""

    extra = 0
    per_page = 20
    can_delete = False
    hide_title = True
    ordering: ClassVar[Sequence[str]] = ("-pk",)

    @cached_property
    def shown(self) -> list[Any]:
        """The columns in their order: names, and callables of a row."""
        first, *rest = columns(self.model, self.fields or ())
        return [self._linked(first) if self.show_change_link else first, *rest]

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Sequence[Any]:
        return self.shown

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Sequence[Any]:
        own = super().get_readonly_fields(request, obj)
        return [*own, *(each for each in self.shown if callable(each))]

    def _linked(self, first: Any) -> Callable[[Model], SafeString]:
        options = self.model._meta
        own = getattr(self, first, None) if isinstance(first, str) else first

        def linked(row: Model) -> SafeString:
            text = own(row) if callable(own) else getattr(row, first)
            text = moment(text) if isinstance(text, datetime) else text
            return link_to(f"{options.app_label}_{options.model_name}", row.pk, text)

        linked.short_description = label_for_field(first, self.model, self)  # type: ignore[attr-defined]
        return linked

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


def moment(instant: datetime | None) -> str | None:
    """An instant that a method answers with, as the site writes all others."""
    if instant is None:
        return None
    return date_format(timezone.localtime(instant), "DATETIME_FORMAT")


def phone_spellings(term: str) -> Iterable[str]:
    """The E.164 numbers that a searched text may mean."""
    digits = term.replace(" ", "").replace("-", "")
    return [digits, f"+{digits.lstrip('+')}", f"+86{digits}"]


def is_id(term: str) -> bool:
    """Whether a searched text can be a row's number."""
    return term.isascii() and term.isdecimal() and len(term) <= 18


def display(
    *,
    description: Any,
    label: bool | str | dict[Any, str] | None = None,
    boolean: bool | None = None,
    ordering: str | None = None,
) -> Callable[[MethodT], MethodT]:
    """A column that a method computes; `label` draws it as a badge, coloured by its value."""
    decorate = unfold_display(
        description=description, label=label, boolean=boolean, ordering=ordering
    )
    return cast(Callable[[MethodT], MethodT], decorate)
