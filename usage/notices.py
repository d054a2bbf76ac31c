"""What a subscriber reads when a share of the tokens is used."""

from django.utils import translation
from django.utils.translation import gettext as _

from accounts.models import Subscriber


def notice_text(*, subscriber_id: int, percent: int) -> tuple[str, str]:
    """(number, text in the subscriber's language) of a threshold notice."""
    subscriber = Subscriber.objects.only("msisdn", "language").get(id=subscriber_id)
    with translation.override(subscriber.language):
        if percent >= 100:
            text = _("Your AI tokens are used up. Buy a pack to go on.")
        else:
            text = _("You have used %(percent)d%% of your AI tokens.") % {"percent": percent}
    return subscriber.msisdn, text
