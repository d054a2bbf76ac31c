"""What to grant of what is asked, and which buckets hold it: whole standard tokens, exact in mt."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from django.conf import settings
from django.urls import reverse

from accounts.keys import in_force
from accounts.models import ApiKey

from . import limits
from .charging import priced_totals
from .database import Cursor, copied_time
from .models import ChargingProfile
from .periods import cycle_of
from .sessions import MT, Session, model_of, other_holds
from .standing import Profile, Standing
from .waterfall import burn

Final = ChargingProfile.Final


@dataclass(slots=True)
class Hold:
    """What a grant holds: (bucket id, mt) in burn order, and mt beyond the buckets."""

    buckets: list[tuple[int, int]] = field(default_factory=list)
    payg_mt: int = 0

    @property
    def mt(self) -> int:
        """All of it."""
        return sum(mt for _bucket_id, mt in self.buckets) + self.payg_mt


@dataclass(frozen=True, slots=True)
class Granted:
    """What a session gets: a result of the API, whole standard tokens, and what holds them.

    `final` says what the node shall do when they are used, if there will be no more.
    """

    result: str
    tokens: int = 0
    hold: Hold = field(default_factory=Hold)
    final: dict[str, str] | None = None
    limit: dict[str, str | int] | None = None


def decide(
    cursor: Cursor, session: Session, standing: Standing, *, requested: int | None, now: datetime
) -> Granted:
    """Grant up to `requested` tokens (None: a slice of our choice) of what is left and allowed.

    The standing is locked and free of what the session itself held; the new hold is taken from it.
    """
    if reason := denial(session, standing, now=now):
        return Granted(reason)
    if requested == 0:
        return Granted("SUCCESS")
    assert session.subscriber_id is not None and session.model_id is not None, "it was denied"
    profile = standing.profiles[session.subscriber_id]
    asked_mt = (settings.QUOTA_SLICE_TOKENS if requested is None else requested) * MT
    rules = limits.rules_of(
        cursor, subscriber_id=session.subscriber_id, api_key_id=session.api_key_id
    )
    others = other_holds(cursor, session) if rules else []
    room = limits.room(cursor, rules, subscriber_id=session.subscriber_id, others=others, now=now)
    wanted_mt = asked_mt if room is None else min(asked_mt, room.mt)
    made = hold(
        standing,
        subscriber_id=session.subscriber_id,
        model_id=session.model_id,
        wanted_mt=wanted_mt,
        payg_room_mt=_payg_room_mt(cursor, profile, standing, now),
        now=now,
    )
    tokens = made.mt // MT
    if tokens < wanted_mt // MT and _is_free(cursor, profile, session, now):
        tokens = wanted_mt // MT
    if tokens == asked_mt // MT:
        return Granted("SUCCESS", tokens, made)
    limited = room if room is not None and tokens == wanted_mt // MT else None
    return Granted(
        "SUCCESS" if tokens else "QUOTA_LIMIT_REACHED",
        tokens,
        made,
        _final(profile) if limited is None else {"action": "TERMINATE"},
        None if limited is None else limited.rule.shown(),
    )


def denial(session: Session, standing: Standing, *, now: datetime) -> str:
    """Why this session is granted nothing whatever is left; empty when it may be."""
    if session.subscriber_id is None:
        return "USER_UNKNOWN"
    if standing.profiles[session.subscriber_id].state != "active":
        return "SERVICE_DENIED"
    if session.api_key_id is not None and not _is_in_force(session.api_key_id, now):
        return "SERVICE_DENIED"
    return "RATING_FAILED" if session.model_id is None else ""


def _is_in_force(api_key_id: int, now: datetime) -> bool:
    """Whether a key still opens anything; what was used by one that does not is charged."""
    return ApiKey.objects.filter(in_force(now=now), id=api_key_id).exists()


def _final(profile: Profile) -> dict[str, str]:
    """What the plan wants when the buckets are used up. A limit ends the session instead: neither
    a top-up nor another model would lift it."""
    if profile.final_action == Final.REDIRECT:
        page = reverse("portal-plans")
        return {"action": "REDIRECT", "url": f"{settings.PUBLIC_URL}{page}#packs"}
    if profile.final_action == Final.RESTRICT and profile.free_model:
        return {"action": "RESTRICT", "model": profile.free_model}
    return {"action": "TERMINATE"}


def _is_free(cursor: Cursor, profile: Profile, session: Session, now: datetime) -> bool:
    """Whether the plan lets the session's model go on for free when nothing is left."""
    if profile.final_action != Final.RESTRICT or not profile.free_model:
        return False
    return model_of(cursor, name=profile.free_model, now=now) == session.model_id


def _payg_room_mt(cursor: Cursor, profile: Profile, standing: Standing, now: datetime) -> int:
    """What pay-as-you-go may still sell this cycle, beside what is priced or held already."""
    if profile.beyond != ChargingProfile.Beyond.PAYG:
        return 0
    priced_mt = priced_totals(cursor, standing, (), now=now)[profile.subscriber_id, cycle_of(now)]
    return max(0, profile.payg_cap_mt - priced_mt - profile.reserved_payg_mt)


def hold(
    standing: Standing,
    *,
    subscriber_id: int,
    model_id: int,
    wanted_mt: int,
    payg_room_mt: int,
    now: datetime,
) -> Hold:
    """Hold up to wanted_mt of what pays for the model now, in burn order, then pay-as-you-go room.

    What other sessions hold is not available; of a pool it counts against the member's caps too.
    """
    buckets, pool_mt = standing.buckets(subscriber_id, now)
    taken, missing_mt = burn(
        buckets, model_id=model_id, at=copied_time(now), mt=wanted_mt, pool_mt=pool_mt
    )
    made = Hold([(bucket.id, mt) for bucket, mt in taken], min(missing_mt, payg_room_mt))
    _drop_fraction(made)
    return made


def _drop_fraction(made: Hold) -> None:
    """A grant is whole tokens: what is left over is not held, from the last that would pay."""
    surplus = made.mt % MT
    part = min(surplus, made.payg_mt)
    made.payg_mt -= part
    surplus -= part
    while surplus:
        bucket_id, mt = made.buckets.pop()
        part = min(surplus, mt)
        surplus -= part
        if mt > part:
            made.buckets.append((bucket_id, mt - part))


def give_back(
    standing: Standing, buckets: Iterable[tuple[int, int]], *, subscriber_id: int
) -> None:
    """Free (bucket id, mt) in a standing that was read while this subscriber's session held
    them."""
    known = {
        bucket.id: bucket
        for owned in (standing.own, standing.of_pools)
        for group in owned.values()
        for bucket in group
    }
    for bucket_id, mt in buckets:
        bucket = known.get(bucket_id)
        if bucket is not None:
            bucket.available_mt += mt
            bucket.reserved_mt -= mt
            if bucket.pool_id is not None:
                standing.give_back(subscriber_id, bucket.pool_id, mt)
