"""The charging profile beside a subscriber: what a plan lets happen beyond the buckets."""

from datetime import datetime

from django.db import transaction

from accounts.models import Subscriber
from config.errors import DomainError

from .enforcement import reconsider, tell_numbers
from .locking import UnknownSubscriber
from .models import ChargingProfile


def refuse_unknown(subscriber_id: int) -> None:
    """Raise UnknownSubscriber unless there is a profile of this id, however large the number; for
    an id that comes from outside and goes into a statement of ours."""
    if not ChargingProfile.objects.filter(subscriber_id=subscriber_id).exists():
        raise UnknownSubscriber(f"There is no subscriber {subscriber_id}.")


@transaction.atomic
def set_terms(
    *,
    subscriber_id: int,
    beyond: str,
    payg_fen_per_million: int,
    payg_cap_mt: int,
    now: datetime,
    final_action: str = ChargingProfile.Final.REDIRECT,
    free_model: str = "",
    pool_first: bool = False,
) -> None:
    """Say what happens beyond the buckets: stop, payg up to a cap a cycle (mt), or restrict; what
    a session is told at the end; and whether a pool's tokens go before its own."""
    if beyond == ChargingProfile.Beyond.PAYG and not (payg_fen_per_million and payg_cap_mt):
        raise DomainError("Pay as you go needs a price and a cap above zero.")
    if final_action == ChargingProfile.Final.RESTRICT and not free_model:
        raise DomainError("To restrict a subscriber, name the free model.")
    profile = ChargingProfile.objects.filter(subscriber_id=subscriber_id).first()
    if profile is None:
        raise UnknownSubscriber(f"Subscriber {subscriber_id} has no charging profile.")
    ChargingProfile.objects.filter(subscriber_id=subscriber_id).update(
        beyond=beyond,
        payg_fen_per_million=payg_fen_per_million,
        payg_cap_mt=payg_cap_mt,
        final_action=final_action,
        free_model=free_model,
        pool_first=pool_first,
    )
    # New terms may open what was blocked. A block they call for waits for the grant that comes
    # with them, the next usage or the sweep, so that nobody is cut off between two steps.
    if profile.blocked:
        reconsider(subscriber_ids=[subscriber_id], now=now)


def follow_subscriber(subscriber: Subscriber, now: datetime) -> None:
    """Keep the profile beside its subscriber: made at creation, its state copied at each change."""
    profile, created = ChargingProfile.objects.get_or_create(
        subscriber=subscriber,
        defaults={"account_id": subscriber.account_id, "state": subscriber.state},
    )
    if not created:
        ChargingProfile.objects.filter(pk=profile.pk).update(
            state=subscriber.state, account_id=subscriber.account_id
        )
        # One who has just become active has no tokens yet, but gets them in a moment: whether to
        # block is asked at the grant, at the first usage, or by the sweep.
        if profile.blocked or subscriber.state in {"suspended", "terminated"}:
            reconsider(subscriber_ids=[subscriber.pk], now=now)
    tell_numbers(subscriber_id=subscriber.pk, now=now)
