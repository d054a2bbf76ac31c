"""What the forms about buckets and pools ask for: tokens, a subscriber, days, and a key."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypedDict
from uuid import uuid4

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminTextInputWidget,
)

from accounts.models import Account, Subscriber
from config import clock
from config.admin import is_id, phone_spellings
from config.buttons import ReasonForm, actor_of
from config.formatting import MT_PER_TOKEN

from ..ledger import MOST_TOKENS
from ..periods import InvalidPeriod, day_end, in_calendar


class TokensField(forms.DecimalField):
    """Standard tokens to the last thousandth; what comes out is millitokens."""

    def __init__(self, **options: Any) -> None:
        usual = {"max_value": MOST_TOKENS, "min_value": -MOST_TOKENS, "decimal_places": 3}
        super().__init__(**(usual | {"widget": UnfoldAdminDecimalFieldWidget} | options))

    def clean(self, value: Any) -> Any:
        tokens = super().clean(value)
        return None if tokens is None else int(tokens * MT_PER_TOKEN)


class SubscriberField(forms.CharField):
    """A phone number or a subscriber's id; what comes out is the Subscriber, who is not gone."""

    def __init__(self, **options: Any) -> None:
        usual = {"max_length": 20, "widget": UnfoldAdminTextInputWidget}
        super().__init__(**(usual | options))

    def clean(self, value: Any) -> Any:
        term = super().clean(value)
        living = Subscriber.objects.exclude(state=Subscriber.State.TERMINATED)
        found = living.filter(msisdn__in=phone_spellings(term)).first()
        if found is None and is_id(term):
            found = living.filter(pk=int(term)).first()
        if found is None:
            raise ValidationError(
                _("Nobody has this number or id. Look the subscriber up, or sign them up first.")
            )
        return found


class AccountField(forms.CharField):
    """An account's id, its exact name or a number of it; what comes out is the Account."""

    def __init__(self, **options: Any) -> None:
        usual = {"max_length": 200, "widget": UnfoldAdminTextInputWidget}
        super().__init__(**(usual | options))

    def clean(self, value: Any) -> Any:
        term = super().clean(value)
        user = Subscriber.objects.filter(msisdn__in=phone_spellings(term)).order_by("-pk").first()
        if user is not None:
            return user.account
        if is_id(term):
            found = list(Account.objects.filter(pk=int(term)))
        else:
            found = list(Account.objects.filter(name=term)[:2])
        if len(found) > 1:
            raise ValidationError(_("Several accounts have this name: enter the id of one."))
        if not found:
            raise ValidationError(
                _("There is no such account. Look it up, or open it by signing somebody up.")
            )
        return found[0]


class DayField(forms.DateField):
    """A billing-zone day."""

    def __init__(self, **options: Any) -> None:
        usual = {"widget": UnfoldAdminTextInputWidget(attrs={"type": "date"})}
        super().__init__(**(usual | options))

    def clean(self, value: Any) -> Any:
        day = super().clean(value)
        try:
            return None if day is None else in_calendar(day)
        except InvalidPeriod as refusal:
            raise ValidationError(_("This day is too far away.")) from refusal


class Once(TypedDict):
    """What names a movement, and who makes it, why and when."""

    key: str
    actor: str
    reason: str
    now: datetime


class KeyedForm(ReasonForm):
    """A reason, and a key, so that a form sent twice moves once."""

    key = forms.UUIDField(widget=forms.HiddenInput, initial=uuid4)

    def once(self, request: HttpRequest) -> Once:
        """What every movement by a form is told."""
        return {
            "key": f"staff:{self.cleaned_data['key']}",
            "actor": actor_of(request),
            "reason": self.cleaned_data["reason"],
            "now": clock.now(),
        }


# What any such form may answer, whatever it moves.
USED_BEFORE = _("This form was used before for something else: open it again.")
DONE_BEFORE = _("This was done before; nothing moved again.")


class GrantForm(KeyedForm):
    """A bucket to open, valid from now to the end of a day."""

    name = forms.CharField(
        label=_("Name, as bills and the portal show it"),
        max_length=100,
        widget=UnfoldAdminTextInputWidget,
    )
    name_en = forms.CharField(
        label=_("English name"), max_length=100, required=False, widget=UnfoldAdminTextInputWidget
    )
    amount_mt = TokensField(label=_("Standard tokens"), min_value=Decimal("0.001"))
    last_day = DayField(label=_("Last day (Asia/Shanghai)"))

    field_order: Sequence[str] = ("name", "name_en", "amount_mt", "last_day", "reason", "key")

    def clean_last_day(self) -> Any:
        day = self.cleaned_data["last_day"]
        if day_end(day) <= clock.now():
            raise ValidationError(_("The day is over: choose today or a later one."))
        return day


class CapsForm(forms.Form):
    """What a member may take from a pool, in standard tokens."""

    cycle_cap_mt = TokensField(
        label=_("Cap a month (standard tokens)"),
        min_value=0,
        required=False,
        help_text=_("Empty: as much as the pool holds."),
    )
    day_cap_mt = TokensField(
        label=_("Cap a day (standard tokens)"),
        min_value=0,
        required=False,
        help_text=_("Empty: as much as the pool holds."),
    )
