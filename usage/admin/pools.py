"""Pools: who pays, what is left, who may draw on it up to which caps, and who came and went."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce, Greatest
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts.admin.subscribers import AccountAdmin
from config import clock
from config.admin import ReadOnlyAdmin, ReadOnlyInline, display
from config.buttons import actor_of, ask, button, page_of, subject_of
from config.columns import link_to
from config.formatting import exact_tokens

from .. import pools
from ..models import Bucket, Pool, PoolMember
from .asking import AccountField
from .balances import BucketAmounts
from .filters import holders
from .granting import give_to_pool
from .members import (
    MAY_CHANGE,
    MemberColumns,
    MemberForm,
    caps_in,
    explain,
    sum_of,
    with_usage,
)

MAY_ADD = "usage.add_pool"


class PoolForm(forms.Form):
    """A pool to make, and who pays for it."""

    name = forms.CharField(label=_("Name"), max_length=100, widget=UnfoldAdminTextInputWidget)
    kind = forms.ChoiceField(
        label=_("Kind"), choices=Pool.Kind.choices, widget=UnfoldAdminSelectWidget
    )
    account = AccountField(
        label=_("Who pays (account's id or name, or a phone number of it)"),
    )


class PoolBucketInline(BucketAmounts, ReadOnlyInline):
    model = Bucket
    show_change_link = True
    verbose_name_plural = _("open buckets")
    fields = ("name", "kind", "granted", "remaining_mt", "reserved_mt", "valid_from", "valid_until")
    readonly_fields = ("granted",)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(closed_at__isnull=True)


class MemberInline(MemberColumns, ReadOnlyInline):
    model = PoolMember
    per_page = 10
    verbose_name_plural = _("members")
    readonly_fields = (
        "subscriber_link",
        "cycle_cap",
        "used_cycle",
        "day_cap",
        "used_today",
        "details",
    )
    fields = (*readonly_fields[:-1], "joined_at", "details")

    def get_queryset(self, request: HttpRequest) -> Any:
        return with_usage(super().get_queryset(request).filter(left_at__isnull=True))


class HistoryInline(MemberColumns, ReadOnlyInline):
    model = PoolMember
    per_page = 10
    verbose_name_plural = _("joins and leaves")
    fields = (
        "subscriber_link",
        "cycle_cap",
        "day_cap",
        "joined_at",
        "joined_by",
        "left_at",
        "left_by",
    )
    readonly_fields = ("subscriber_link", "cycle_cap", "day_cap")

    def get_queryset(self, request: HttpRequest) -> Any:
        rows = super().get_queryset(request).select_related("subscriber", "pool")
        return rows.order_by(Greatest("joined_at", "left_at").desc(), "-pk")


class PoolInline(ReadOnlyInline):
    """On the page of the account that pays."""

    model = Pool
    show_change_link = True
    fields = ("name", "kind", "created_at")


AccountAdmin.inlines += [PoolInline]


@admin.register(Pool)
class PoolAdmin(ReadOnlyAdmin):
    """Search: a pool's name or id, its account's id, or the number of a present or past member."""

    list_display = ("name", "kind", "account_link", "present", "left", "held", "created_at")
    list_filter = ("kind",)
    list_select_related = ("account",)
    search_texts = ("name",)
    search_ids = ("id", "account_id")
    sortable_by = ("name", "created_at")
    fields = ("name", "kind", "account_link", "created_at", "granted", "left", "held", "present")
    readonly_fields = ("account_link", "granted", "left", "held", "present")
    inlines = (PoolBucketInline, MemberInline, HistoryInline)
    actions_list = ("create",)
    actions_detail = ("let_in", "give_to_pool")
    give_to_pool = give_to_pool

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        opened = Bucket.objects.filter(pool_id=OuterRef("pk"), closed_at__isnull=True)
        members = PoolMember.objects.filter(pool_id=OuterRef("pk"), left_at__isnull=True)
        counted = members.order_by().values("pool_id").annotate(n=Count("pk")).values("n")
        rows: QuerySet[Any] = super().get_queryset(request)
        summed: QuerySet[Any] = rows.annotate(
            granted_mt=sum_of(opened, "granted_mt") + sum_of(opened, "adjusted_mt"),
            remaining_mt=sum_of(opened, "remaining_mt"),
            reserved_mt=sum_of(opened, "reserved_mt"),
            members_now=Coalesce(Subquery(counted), 0),
        )
        return summed

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if ids := holders(search_term):
            mine = PoolMember.objects.filter(subscriber_id__in=ids).values("pool_id")
            return queryset.filter(pk__in=mine), False
        found: tuple[QuerySet[Any], bool] = super().get_search_results(
            request, queryset, search_term
        )
        return found

    @display(description=_("Who pays"))
    def account_link(self, pool: Pool) -> SafeString:
        return link_to("accounts_account", pool.account_id, pool.account)

    @display(description=_("Members"))
    def present(self, pool: Any) -> int:
        return int(pool.members_now)

    @display(description=_("Granted to open buckets"))
    def granted(self, pool: Any) -> str:
        return exact_tokens(pool.granted_mt)

    @display(description=_("Tokens left"))
    def left(self, pool: Any) -> str:
        return exact_tokens(pool.remaining_mt)

    @display(description=_("Held by sessions"))
    def held(self, pool: Any) -> str:
        return exact_tokens(pool.reserved_mt)

    @button(description=_("Create a pool"), permissions=[MAY_ADD], icon="add")
    def create(self, request: HttpRequest) -> HttpResponse:
        def perform(form: PoolForm) -> HttpResponse:
            pool = pools.create_pool(
                account_id=form.cleaned_data["account"].pk,
                name=form.cleaned_data["name"],
                kind=form.cleaned_data["kind"],
                now=clock.now(),
            )
            self.log_addition(request, pool, gettext("Create a pool"))
            messages.success(request, gettext("The pool is there: give it tokens and members."))
            return redirect(page_of(self, pool))

        return ask(
            self,
            request,
            title=gettext("Create a pool"),
            form_class=PoolForm,
            perform=perform,
        )

    @button(description=_("Add a member"), permissions=[MAY_CHANGE], icon="person_add")
    def let_in(self, request: HttpRequest, object_id: str) -> HttpResponse:
        pool = subject_of(self, request, object_id, Pool)

        def perform(form: MemberForm) -> str:
            _member, joined = pools.join(
                pool_id=pool.pk,
                subscriber_id=form.cleaned_data["subscriber"].pk,
                actor=actor_of(request),
                now=clock.now(),
                **caps_in(form),
            )
            who = {"number": form.cleaned_data["subscriber"].msisdn}
            if not joined:
                return gettext("%(number)s was in this pool already.") % who
            return gettext("%(number)s may draw on the pool now.") % who

        return ask(
            self,
            request,
            title=gettext("Add a member"),
            form_class=MemberForm,
            perform=perform,
            subject=pool,
            description=gettext(
                "They draw on their own buckets first and then on the pool's, unless their plan "
                "says otherwise."
            ),
            explain=explain,
        )
