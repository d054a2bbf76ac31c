"""Ways out for a message to a person. settings.SMS_SENDER names the class in use."""

import json
import logging
import urllib.error
import urllib.request
from typing import Protocol
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.module_loading import import_string

logger = logging.getLogger("accounts.sms")

_TIMEOUT_SECONDS = 5


class SendFailed(Exception):
    """The message did not go out; its text says why and carries nothing of the message."""


class Sender(Protocol):
    """Sends one message or raises SendFailed. `key` is the same when a message is sent again."""

    def send(self, *, key: str, recipient: str, template: str, body: str) -> None: ...


class ConsoleSender:
    """Writes messages to the log and keeps nothing: for demos and development."""

    def send(self, *, key: str, recipient: str, template: str, body: str) -> None:
        logger.info("[SMS] to %s: %s", recipient, body)


class WebhookSender:
    """Posts messages as JSON to settings.SMS_WEBHOOK_URL; any 2xx answer means sent."""

    def send(self, *, key: str, recipient: str, template: str, body: str) -> None:
        url = settings.SMS_WEBHOOK_URL
        if urlsplit(url).scheme not in {"http", "https"}:
            raise SendFailed("SMS_WEBHOOK_URL must be an http(s) address.")
        message = {"key": key, "recipient": recipient, "template": template, "body": body}
        request = urllib.request.Request(  # noqa: S310 (the scheme is checked above)
            url,
            data=json.dumps(message, ensure_ascii=False).encode(),
            # The key lets the receiver drop a message that is sent a second time after a crash.
            headers={"Content-Type": "application/json", "Idempotency-Key": key},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):  # noqa: S310
                pass
        except urllib.error.HTTPError as error:
            error.close()
            raise SendFailed(f"The webhook answered {error.code}.") from error
        except OSError as error:  # refused, timed out, no such host, broken TLS
            raise SendFailed(f"The webhook was not reached: {error}") from error


def configured_sender() -> Sender:
    """A new sender of the class that settings.SMS_SENDER names."""
    sender: Sender = import_string(settings.SMS_SENDER)()
    return sender
