"""Members of pools: their caps, what counts against them, and their way out."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import EmptyFieldListFilter
from django.db.models import OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.admin.subscribers import SubscriberAdmin
from config import clock
from config.admin import ReadOnlyAdmin, ReadOnlyInline, display
from config.buttons import ConfirmForm, actor_of, ask, button, subject_of
from config.columns import link_to
from config.errors import DomainError
from config.formatting import exact_tokens

from .. import pools
from ..models import UNCAPPED, PoolMember, PoolUsage
from ..periods import cycle_of, day_of, next_cycle
from .asking import CapsForm, SubscriberField
from .filters import HolderSearch

MAY_CHANGE = "usage.change_pool"


class MemberForm(CapsForm):
    """Who joins, and up to which caps."""

    subscriber = SubscriberField(label=_("Phone number or subscriber id"))

    field_order = ("subscriber", "cycle_cap_mt", "day_cap_mt")


def caps_in(form: CapsForm) -> pools.Caps:
    """Both caps; an empty field caps nothing."""
    month, day = form.cleaned_data["cycle_cap_mt"], form.cleaned_data["day_cap_mt"]
    return {
        "cycle_cap_mt": UNCAPPED if month is None else month,
        "day_cap_mt": UNCAPPED if day is None else day,
    }


def explain(refusal: DomainError) -> str:
    """Why a pool refuses, in the reader's language."""
    texts = {
        "membership_refused": _(
            "This subscriber is in a pool already (or in this one with other caps): "
            "let them leave it first, or change the caps on the page of the membership."
        ),
        "unknown_pool": _("This membership has ended: open the pool's page again."),
    }
    return str(texts.get(refusal.code, refusal))


def cap(mt: int) -> str:
    """A cap for people."""
    return gettext("no cap") if mt == UNCAPPED else exact_tokens(mt)


class MemberColumns:
    """Caps, and beside each what counts against it now."""

    @display(description=_("Subscriber"))
    def subscriber_link(self, member: PoolMember) -> SafeString:
        return link_to("accounts_subscriber", member.subscriber_id, member.subscriber)

    @display(description=_("Pool"))
    def pool_link(self, member: PoolMember) -> SafeString:
        return link_to("usage_pool", member.pool_id, member.pool)

    @display(description=_("Membership"))
    def details(self, member: PoolMember) -> SafeString:
        return link_to("usage_poolmember", member.pk, _("Details"))

    @display(description=_("Cap a month"))
    def cycle_cap(self, member: PoolMember) -> str:
        return cap(member.cycle_cap_mt)

    @display(description=_("Cap a day"))
    def day_cap(self, member: PoolMember) -> str:
        return cap(member.day_cap_mt)

    @display(description=_("Used this month"))
    def used_cycle(self, member: Any) -> str:
        return exact_tokens(member.cycle_mt)

    @display(description=_("Used today"))
    def used_today(self, member: Any) -> str:
        return exact_tokens(member.day_mt)


def with_usage(members: QuerySet[Any]) -> QuerySet[Any]:
    """What each took from the pool in the running cycle and today, as `cycle_mt` and `day_mt`."""
    now = clock.now()
    used = PoolUsage.objects.filter(
        pool_id=OuterRef("pool_id"), subscriber_id=OuterRef("subscriber_id")
    )
    cycle = cycle_of(now)
    month = used.filter(day__gte=cycle, day__lt=next_cycle(cycle))
    today = used.filter(day=day_of(now))
    counted: QuerySet[Any] = members.select_related("subscriber", "pool").annotate(
        cycle_mt=sum_of(month, "mt"), day_mt=sum_of(today, "mt")
    )
    return counted


def sum_of(rows: QuerySet[Any], column: str) -> Coalesce:
    """The sum of a correlated set, 0 when it is empty."""
    total = rows.order_by().values("pool_id").annotate(total=Sum(column)).values("total")
    return Coalesce(Subquery(total), 0)


class MembershipInline(MemberColumns, ReadOnlyInline):
    """On the page of a subscriber."""

    model = PoolMember
    ordering = ("-joined_at",)
    readonly_fields = ("pool_link", "cycle_cap", "used_cycle", "day_cap", "used_today", "details")
    fields = (*readonly_fields[:-1], "joined_at", "details")

    def get_queryset(self, request: HttpRequest) -> Any:
        return with_usage(super().get_queryset(request).filter(left_at__isnull=True))


SubscriberAdmin.inlines += [MembershipInline]


def is_present(member: PoolMember) -> bool:
    """Whether the membership has not ended."""
    return member.left_at is None


@admin.register(PoolMember)
class PoolMemberAdmin(MemberColumns, HolderSearch, ReadOnlyAdmin):
    """Newest first; other caps end one row and begin the next. Search: a number, a pool's id."""

    list_display = (
        "subscriber",
        "pool_link",
        "cycle_cap",
        "used_cycle",
        "day_cap",
        "used_today",
        "joined_at",
        "left_at",
    )
    list_display_links = ("subscriber",)
    list_filter = (("left_at", EmptyFieldListFilter),)
    search_ids = ("pool_id", "subscriber_id")
    sortable_by = ("joined_at", "left_at")
    fields = (
        "pool_link",
        "subscriber_link",
        "cycle_cap",
        "used_cycle",
        "day_cap",
        "used_today",
        "joined_at",
        "joined_by",
        "left_at",
        "left_by",
    )
    readonly_fields = (
        "pool_link",
        "subscriber_link",
        "cycle_cap",
        "used_cycle",
        "day_cap",
        "used_today",
    )
    actions_detail = ("change_caps", "leave")
    fitting = {"change_caps": is_present, "leave": is_present}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return with_usage(super().get_queryset(request))

    @button(description=_("Change caps"), permissions=[MAY_CHANGE], icon="speed")
    def change_caps(self, request: HttpRequest, object_id: str) -> HttpResponse:
        member = subject_of(self, request, object_id, PoolMember)

        def perform(form: CapsForm) -> HttpResponse:
            pools.set_caps(
                pool_id=member.pool_id,
                subscriber_id=member.subscriber_id,
                actor=actor_of(request),
                now=clock.now(),
                **caps_in(form),
            )
            return _back_to_pool(request, member, gettext("The caps are changed."))

        return ask(
            self,
            request,
            title=gettext("Change caps"),
            form_class=CapsForm,
            perform=perform,
            subject=member,
            description=gettext(
                "They hold from now on; what was taken this month and today counts against them."
            ),
            initial=caps_of(member),
            explain=explain,
        )

    @button(
        description=_("Leave the pool"), permissions=[MAY_CHANGE], icon="person_remove", danger=True
    )
    def leave(self, request: HttpRequest, object_id: str) -> HttpResponse:
        member = subject_of(self, request, object_id, PoolMember)

        def perform(form: ConfirmForm) -> HttpResponse:
            pools.leave(
                pool_id=member.pool_id,
                subscriber_id=member.subscriber_id,
                actor=actor_of(request),
                now=clock.now(),
            )
            left = gettext("%(number)s has left the pool.") % {"number": member.subscriber.msisdn}
            return _back_to_pool(request, member, left)

        return ask(
            self,
            request,
            title=gettext("Leave the pool"),
            form_class=ConfirmForm,
            perform=perform,
            subject=member,
            description=gettext(
                "From now on they draw on their own buckets only. What they took stays taken, and "
                "usage of before still counts on the pool."
            ),
            danger=True,
            explain=explain,
        )


def caps_of(member: PoolMember) -> dict[str, str]:
    """The caps in force, as the form shows them."""
    caps = {"cycle_cap_mt": member.cycle_cap_mt, "day_cap_mt": member.day_cap_mt}
    return {name: exact_tokens(mt).replace(",", "") for name, mt in caps.items() if mt != UNCAPPED}


def _back_to_pool(request: HttpRequest, member: PoolMember, said: str) -> HttpResponse:
    messages.success(request, said)
    return redirect(reverse("admin:usage_pool_change", args=[member.pool_id]))
