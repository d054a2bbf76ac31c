"""Reads of accounts that several rooms share."""

from accounts.lifecycle import UnknownSubscriber
from accounts.models import Subscriber
from accounts.numbers import normalise_msisdn


def living_subscriber(*, msisdn: str) -> Subscriber:
    """The subscriber that holds the number now, terminated ones aside.

    Raises InvalidNumber, UnknownSubscriber.
    """
    number = normalise_msisdn(msisdn)
    living = Subscriber.objects.exclude(state=Subscriber.State.TERMINATED)
    subscriber = living.select_related("account").filter(msisdn=number).first()
    if subscriber is None:
        raise UnknownSubscriber(f"No living subscriber has the number {number}.")
    return subscriber
