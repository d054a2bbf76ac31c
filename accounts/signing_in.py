"""The two pages of signing in, over allauth's flow: the number, then the code that was sent."""

from allauth.account.views import ConfirmLoginCodeView, RequestLoginCodeView
from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from accounts.numbers import InvalidNumber, normalise_msisdn


class PhoneNumberField(forms.CharField):
    """A phone number as people type it, cleaned to E.164."""

    default_error_messages = {"required": _("Type your phone number.")}

    def clean(self, value: object) -> str:
        """Raises ValidationError with a sentence for the reader."""
        text = str(super().clean(value))
        try:
            return normalise_msisdn(text)
        except InvalidNumber as refusal:
            raise ValidationError(
                _("This is not a phone number. Type it like 139 0000 0001.")
            ) from refusal


class NumberPage(RequestLoginCodeView):  # type: ignore[misc]  # allauth has no types
    """Asks for the number. The next page is the same whether or not anybody has it."""

    template_name = "accounts/sign_in.html"


class CodePage(ConfirmLoginCodeView):  # type: ignore[misc]
    """Asks for the code; five wrong ones and a new code is needed."""

    template_name = "accounts/sign_in_code.html"
