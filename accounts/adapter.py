"""Signing in by phone number and one-time code: what allauth asks of this project.

Unknown and terminated numbers see the same pages as living ones, and no message goes out.
"""

import logging
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest
from django.utils.crypto import get_random_string
from django.utils.translation import gettext as _
from django.utils.translation import override

from accounts import outbox
from accounts.models import Subscriber, User

logger = logging.getLogger(__name__)


class PhoneAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no types
    """Numbers belong to subscribers, so a user's phone is read from there and never set here."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Subscribers are made by the carrier, not by this page."""
        return False

    def phone_form_field(self, **kwargs: Any) -> Any:
        """The field of the sign-in form: takes a number as people type it."""
        from accounts.signing_in import PhoneNumberField  # forms need the adapter, and it them

        return PhoneNumberField(**kwargs)

    def get_user_by_phone(self, phone: str) -> AbstractBaseUser | None:
        """The user of the living subscriber that holds the number."""
        living = Subscriber.objects.exclude(state=Subscriber.State.TERMINATED)
        return User.objects.filter(
            is_active=True, subscriber__in=living.filter(msisdn=phone)
        ).first()

    def get_phone(self, user: AbstractBaseUser) -> tuple[str, bool] | None:
        """The number of the user's subscriber; the carrier vouches for it."""
        subscriber = Subscriber.objects.filter(user_id=user.pk).first()
        return (subscriber.msisdn, True) if subscriber else None

    def set_phone(self, user: AbstractBaseUser, phone: str, verified: bool) -> None:
        """Numbers change through accounts.lifecycle only."""

    def set_phone_verified(self, user: AbstractBaseUser, phone: str) -> None:
        """Nothing to note: a number in the register is the subscriber's."""

    def generate_phone_verification_code(self, *, user: AbstractBaseUser, phone: str) -> str:
        """Six random digits; a demonstration on the embedded database may fix them."""
        demonstration = settings.DEBUG or settings.CLOCK_FILE
        if settings.DEMO_CODE and demonstration and settings.EMBEDDED_POSTGRES:
            return str(settings.DEMO_CODE)
        return get_random_string(length=6, allowed_chars="0123456789")

    def send_verification_code_sms(
        self, user: AbstractBaseUser, phone: str, code: str, **kwargs: Any
    ) -> None:
        """Send at once, in the subscriber's language. A failure looks like success.

        Only living numbers can fail, so an error page would tell which numbers those are.
        """
        subscriber = Subscriber.objects.get(user_id=user.pk)
        with override(subscriber.language):
            body = _("%(code)s is your sign-in code, valid for 5 minutes. Give it to nobody.")
        try:
            outbox.send_now(
                key=f"signin:{get_random_string(12)}",
                recipient=phone,
                template="sign_in_code",
                body=body % {"code": code},
            )
        except outbox.MessageNotSent:
            logger.warning("a sign-in code was not sent to subscriber %s", subscriber.pk)

    def add_message(self, request: HttpRequest, level: int, *args: Any, **kwargs: Any) -> None:
        """Only what went wrong is worth a line: the pages themselves say what went well."""
        if level >= messages.WARNING:
            super().add_message(request, level, *args, **kwargs)
