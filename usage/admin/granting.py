"""Tokens that staff give: a promotional bucket for a subscriber, a bucket for a pool."""

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminSelectWidget

from accounts.models import Subscriber
from config.admin import ReadOnlyAdmin
from config.buttons import ask, button, subject_of
from config.errors import DomainError
from config.formatting import exact_tokens

from .. import ledger, pools
from ..models import Bucket, Pool
from ..periods import day_end
from .asking import DONE_BEFORE, USED_BEFORE, GrantForm

MAY_GRANT = "usage.add_bucket"


class PoolGrantForm(GrantForm):
    """A bucket of a pool, of any kind."""

    kind = forms.ChoiceField(
        label=_("Kind"),
        choices=Bucket.Kind.choices,
        initial=Bucket.Kind.PACK,
        widget=UnfoldAdminSelectWidget,
    )

    field_order = ("name", "name_en", "kind", "amount_mt", "last_day", "reason", "key")


def explain(refusal: DomainError) -> str:
    """Why a grant is refused, in the reader's language."""
    if refusal.code == "grant_reused":
        return str(USED_BEFORE)
    return str(refusal)


def given(bucket: Bucket, opened: bool) -> str:
    """What the person reads after a grant."""
    if not opened:
        return str(DONE_BEFORE)
    return gettext("Granted: %(tokens)s standard tokens.") % {
        "tokens": exact_tokens(bucket.granted_mt)
    }


@button(description=_("Give tokens"), permissions=[MAY_GRANT], icon="redeem")
def give_tokens(self: ReadOnlyAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
    """A promotional bucket of a subscriber, from the subscriber's page."""
    subscriber = subject_of(self, request, object_id, Subscriber)

    def perform(form: GrantForm) -> str:
        values, once = form.cleaned_data, form.once(request)
        return given(
            *ledger.grant(
                subscriber_id=subscriber.pk,
                kind=Bucket.Kind.PROMOTION,
                name=values["name"],
                name_en=values["name_en"],
                amount_mt=values["amount_mt"],
                valid_from=once["now"],
                valid_until=day_end(values["last_day"]),
                **once,
            )
        )

    return ask(
        self,
        request,
        title=gettext("Give tokens"),
        form_class=GrantForm,
        perform=perform,
        subject=subscriber,
        description=gettext("Opens a promotional bucket that is good from now on and free."),
        explain=explain,
    )


@button(description=_("Give tokens"), permissions=[MAY_GRANT], icon="redeem")
def give_to_pool(self: ReadOnlyAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
    """A bucket of a pool, from the pool's page."""
    pool = subject_of(self, request, object_id, Pool)

    def perform(form: PoolGrantForm) -> str:
        values, once = form.cleaned_data, form.once(request)
        wanted = ledger.Grant(
            pool_id=pool.pk,
            kind=values["kind"],
            name=values["name"],
            name_en=values["name_en"],
            amount_mt=values["amount_mt"],
            valid_from=once["now"],
            valid_until=day_end(values["last_day"]),
            key=once["key"],
        )
        return given(
            *pools.grant_to_pool(
                wanted=wanted, actor=once["actor"], reason=once["reason"], now=once["now"]
            )
        )

    return ask(
        self,
        request,
        title=gettext("Give tokens"),
        form_class=PoolGrantForm,
        perform=perform,
        subject=pool,
        description=gettext("Opens a bucket that all members may draw on, good from now on."),
        explain=explain,
    )
