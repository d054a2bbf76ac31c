"""Movements of buckets by staff: adjust, void, transfer; each with a reason, each once."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldBooleanSwitchWidget

from accounts.models import Subscriber
from config import clock
from config.admin import ReadOnlyAdmin, ReadOnlyInline, display
from config.buttons import ask, button, subject_of
from config.columns import link_to
from config.errors import DomainError
from config.formatting import exact_tokens

from .. import movements
from ..models import Bucket, Movement
from .asking import DONE_BEFORE, USED_BEFORE, KeyedForm, SubscriberField, TokensField

MAY_MOVE = "usage.change_bucket"


class AdjustForm(KeyedForm):
    """What a bucket gains, or loses below zero."""

    amount_mt = TokensField(
        label=_("Standard tokens"), help_text=_("Below zero they are taken away.")
    )

    field_order = ("amount_mt", "reason", "key")


class TransferForm(KeyedForm):
    """To whom, and how much."""

    to_subscriber = SubscriberField(label=_("To (phone number or subscriber id)"))
    amount_mt = TokensField(label=_("Standard tokens"), min_value=Decimal("0.001"))
    into_new_bucket = forms.BooleanField(
        label=_("Into a bucket of its own"),
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text=_("Else into one of the receiver's with the same terms, if there is one."),
    )

    field_order = ("to_subscriber", "amount_mt", "into_new_bucket", "reason", "key")


def is_open(bucket: Bucket) -> bool:
    """Whether anything can still be moved."""
    return bucket.closed_at is None and not is_void(bucket)


def is_void(bucket: Bucket) -> bool:
    """Whether staff took back what was left of it."""
    return Movement.objects.filter(bucket=bucket, kind=Movement.Kind.VOID).exists()


def free_mt(bucket: Bucket) -> int:
    """What no session holds, in mt."""
    return bucket.remaining_mt - bucket.reserved_mt


def amounts(bucket: Bucket) -> str:
    """What is left, for the person who is about to move some of it."""
    return gettext("Left: %(left)s standard tokens, of which sessions hold %(held)s.") % {
        "left": exact_tokens(bucket.remaining_mt),
        "held": exact_tokens(bucket.reserved_mt),
    }


def explain(bucket: Bucket, kind: str) -> Callable[[DomainError], str]:
    """Why the bucket refuses a movement and what to do, in the reader's language."""

    def told(refusal: DomainError) -> str:
        if refusal.code == "key_reused":
            return str(USED_BEFORE)
        if refusal.code == "bucket_full":
            return gettext("The bucket would be too large: move less, or grant a new one.")
        if refusal.code != "bucket_refused":
            return str(refusal)
        bucket.refresh_from_db()
        if not is_open(bucket):
            return gettext("The bucket is closed or void: grant a new one instead.")
        if kind == Movement.Kind.VOID:
            held = exact_tokens(bucket.reserved_mt)
            return gettext(
                "Sessions hold %(held)s standard tokens of it: void it when they have ended."
            ) % {"held": held}
        if kind == Movement.Kind.TRANSFER and bucket.valid_until <= clock.now():
            return gettext("The bucket is past its end: grant a new one to the receiver.")
        free = exact_tokens(free_mt(bucket))
        return gettext(
            "The bucket has %(free)s standard tokens free: move some, and no more than that."
        ) % {"free": free}

    return told


def done(movement: Movement, created: bool) -> str:
    """What the person reads afterwards."""
    if not created:
        return str(DONE_BEFORE)
    return gettext("Done: %(before)s standard tokens were left before, %(after)s are left now.") % {
        "before": exact_tokens(movement.before_mt),
        "after": exact_tokens(movement.after_mt),
    }


class BucketButtons(ReadOnlyAdmin):
    """The buttons of a bucket's page."""

    actions_detail = ("adjust", "transfer", "void")
    fitting = {
        "adjust": is_open,
        "transfer": lambda bucket: bucket.subscriber_id is not None and is_open(bucket),
        "void": is_open,
    }

    @button(description=_("Adjust"), permissions=[MAY_MOVE], icon="exposure")
    def adjust(self, request: HttpRequest, object_id: str) -> HttpResponse:
        bucket = subject_of(self, request, object_id, Bucket)

        def perform(form: AdjustForm) -> str:
            return done(
                *movements.adjust(
                    bucket_id=bucket.pk,
                    amount_mt=form.cleaned_data["amount_mt"],
                    **form.once(request),
                )
            )

        return ask(
            self,
            request,
            title=gettext("Adjust"),
            form_class=AdjustForm,
            perform=perform,
            subject=bucket,
            description=amounts(bucket),
            explain=explain(bucket, Movement.Kind.ADJUSTMENT),
        )

    @button(description=_("Transfer"), permissions=[MAY_MOVE], icon="move_up")
    def transfer(self, request: HttpRequest, object_id: str) -> HttpResponse:
        bucket = subject_of(self, request, object_id, Bucket)

        def perform(form: TransferForm) -> str | HttpResponse:
            values = form.cleaned_data
            receiver: Subscriber = values["to_subscriber"]
            if receiver.pk == bucket.subscriber_id:
                raise DomainError(gettext("The tokens are theirs already: name somebody else."))
            return done(
                *movements.transfer(
                    bucket_id=bucket.pk,
                    to_subscriber_id=receiver.pk,
                    amount_mt=values["amount_mt"],
                    into_new_bucket=values["into_new_bucket"],
                    **form.once(request),
                )
            )

        return ask(
            self,
            request,
            title=gettext("Transfer"),
            form_class=TransferForm,
            perform=perform,
            subject=bucket,
            description=amounts(bucket),
            explain=explain(bucket, Movement.Kind.TRANSFER),
        )

    @button(description=_("Void"), permissions=[MAY_MOVE], icon="undo", danger=True)
    def void(self, request: HttpRequest, object_id: str) -> HttpResponse:
        bucket = subject_of(self, request, object_id, Bucket)

        def perform(form: KeyedForm) -> str:
            return done(*movements.void_bucket(bucket_id=bucket.pk, **form.once(request)))

        return ask(
            self,
            request,
            title=gettext("Void"),
            form_class=KeyedForm,
            perform=perform,
            subject=bucket,
            description=amounts(bucket)
            + " "
            + gettext("All of it is taken back, and the bucket pays nothing any more."),
            danger=True,
            explain=explain(bucket, Movement.Kind.VOID),
        )


class MovementColumns:
    """What a movement did to its bucket."""

    @display(description=_("Bucket"))
    def bucket_link(self, movement: Movement) -> SafeString:
        return link_to("usage_bucket", movement.bucket_id, movement.bucket)

    @display(description=_("Other bucket"))
    def other_link(self, movement: Movement) -> SafeString | str:
        if movement.other_bucket is None:
            return "-"
        return link_to("usage_bucket", movement.other_bucket_id, movement.other_bucket)


class MovementInline(MovementColumns, ReadOnlyInline):
    model = Movement
    fk_name = "bucket"
    fields = (
        "at",
        "kind",
        "amount_mt",
        "before_mt",
        "after_mt",
        "other_link",
        "actor",
        "reason",
    )
    readonly_fields = ("other_link",)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("other_bucket")


class IncomingInline(MovementColumns, ReadOnlyInline):
    model = Movement
    fk_name = "other_bucket"
    verbose_name_plural = _("transfers from other buckets")
    fields = (
        "at",
        "amount_mt",
        "other_before_mt",
        "other_after_mt",
        "bucket_link",
        "actor",
        "reason",
    )
    readonly_fields = ("bucket_link",)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("bucket")


@admin.register(Movement)
class MovementAdmin(MovementColumns, ReadOnlyAdmin):
    """Newest first. Search: a bucket's id, or a phone number of either side."""

    list_display = (
        "at",
        "kind",
        "amount_mt",
        "bucket_link",
        "before_mt",
        "after_mt",
        "other_link",
        "actor",
        "reason",
    )
    list_display_links = ("at",)
    list_filter = ("kind",)
    list_select_related = ("bucket", "other_bucket")
    search_texts = ("actor", "key")
    search_ids = ("bucket_id", "other_bucket_id", "bucket__pool_id")
    search_phones = ("bucket__subscriber__msisdn", "other_bucket__subscriber__msisdn")
