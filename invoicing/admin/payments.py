"""Payments, with the two buttons of offline money, and what the provider's webhooks said."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from config import clock
from config.admin import ReadOnlyAdmin, display
from config.buttons import ConfirmForm, ReasonForm, actor_of, ask, button, subject_of
from config.formatting import yuan

from .. import paying
from ..models import Payment, WebhookEvent

MAY_SETTLE = "invoicing.change_payment"


def waits_offline(payment: Payment) -> bool:
    """Whether staff still have to say if the money came."""
    offline = payment.method == Payment.Method.OFFLINE
    return offline and payment.state == Payment.State.PENDING


@admin.register(Payment)
class PaymentAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at",
        "account",
        "method",
        "amount_fen",
        "state_label",
        "invoice",
        "order_id",
        "confirmed_by",
        "settled_at",
    )
    list_select_related = ("account", "invoice")
    list_filter = ("state", "method")
    search_texts = ("stripe_id", "invoice__number", "key")
    search_phones = ("account__subscribers__msisdn",)
    search_ids = ("id", "account_id")
    actions_detail = ("confirm", "reject")
    fitting = {"confirm": waits_offline, "reject": waits_offline}

    @display(
        description=_("State"),
        label={
            "pending": "warning",
            "succeeded": "success",
            "failed": "danger",
            "cancelled": "info",
        },
    )
    def state_label(self, payment: Payment) -> tuple[str, str]:
        return payment.state, payment.get_state_display()

    @button(description=_("Confirm receipt"), permissions=[MAY_SETTLE], icon="check")
    def confirm(self, request: HttpRequest, object_id: str) -> HttpResponse:
        payment = subject_of(self, request, object_id, Payment)

        def perform(form: ConfirmForm) -> str:
            paying.confirm_offline(payment_id=payment.pk, actor=actor_of(request), now=clock.now())
            return gettext("%(amount)s is received.") % {"amount": yuan(payment.amount_fen)}

        return ask(
            self,
            request,
            title=gettext("Confirm receipt"),
            form_class=ConfirmForm,
            perform=perform,
            subject=payment,
            description=gettext("%(amount)s has arrived outside of this system.")
            % {"amount": yuan(payment.amount_fen)},
        )

    @button(
        description=_("Reject"),
        permissions=[MAY_SETTLE],
        icon="close",
        danger=True,
    )
    def reject(self, request: HttpRequest, object_id: str) -> HttpResponse:
        payment = subject_of(self, request, object_id, Payment)

        def perform(form: ReasonForm) -> str:
            paying.reject_offline(
                payment_id=payment.pk,
                actor=actor_of(request),
                reason=form.cleaned_data["reason"],
                now=clock.now(),
            )
            return gettext("The payment is rejected; the customer can pay again.")

        return ask(
            self,
            request,
            title=gettext("Reject"),
            form_class=ReasonForm,
            perform=perform,
            subject=payment,
            danger=True,
        )


@admin.register(WebhookEvent)
class WebhookEventAdmin(ReadOnlyAdmin):
    list_display = ("received_at", "kind", "provider_id", "handled_at", "outcome")
    list_filter = ("kind",)
    search_texts = ("provider_id",)
