"""API keys: bearer secrets that are shown once and stored as a hash.

A token is `<public id>.<secret>`. The public id finds the row and may be named in the open (as the
subject of a usage event); the secret has 256 random bits, so one unsalted SHA-256 protects it.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from accounts.models import ApiKey, Subscriber
from config.errors import DomainError

# What a key of each kind may be allowed; nothing else is ever granted.
SCOPES: dict[str, tuple[str, ...]] = {
    ApiKey.Kind.NODE: ("usage:write", "quota:write", "feed:read"),
    ApiKey.Kind.SUBSCRIBER: ("me:read", "me:write"),
    ApiKey.Kind.STAFF: (
        "accounts:read",
        "accounts:write",
        "invoices:read",
        "invoices:write",
        "adjustments:write",
        "assurance:read",
        "catalogue:read",
    ),
}
MAX_LIVING_KEYS = 20
_LAST_USED_STEP = timedelta(minutes=1)
_NO_HASH = "0" * 64


class InvalidKey(DomainError):
    """The bearer token is not a key in force. It never says which part was wrong."""

    code = "invalid_key"
    status = 401
    title = "Invalid key"


class UnknownScope(DomainError):
    """A key of this kind cannot have such a scope."""

    code = "unknown_scope"
    status = 400
    title = "Unknown scope"


class TooManyKeys(DomainError):
    """The subscriber already holds as many keys as allowed."""

    code = "too_many_keys"
    status = 409
    title = "Too many keys"


class KeyOwnerGone(DomainError):
    """Keys are made only for subscribers that live."""

    code = "key_owner_gone"
    status = 409
    title = "No key for this subscriber"


@transaction.atomic
def issue_key(
    *,
    kind: str,
    now: datetime,
    subscriber_id: int | None = None,
    user_id: int | None = None,
    name: str = "",
    scopes: Collection[str] = (),
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Make a key and return it with its token, which nobody can read again afterwards.

    Without `scopes` a node's or subscriber's key gets all of its kind; a staff key must name its
    own. Raises UnknownScope, TooManyKeys, KeyOwnerGone.
    """
    granted = _checked_scopes(kind, scopes)
    if subscriber_id is not None:
        _check_room(subscriber_id, now)
    secret = secrets.token_urlsafe(32)
    key = ApiKey.objects.create(
        kind=ApiKey.Kind(kind),
        public_id=_new_public_id(),
        secret_hash=_hash(secret),
        name=name,
        subscriber_id=subscriber_id,
        user_id=user_id,
        scopes=granted,
        created_at=now,
        expires_at=expires_at,
    )
    return key, f"{key.public_id}.{secret}"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What is stored of a key, as far as it decides whether a secret opens it."""

    id: int
    secret_hash: str
    scopes: Sequence[str]
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def authenticate(*, token: str, now: datetime) -> ApiKey:
    """Return the key of a bearer token, with its subscriber and user loaded, in one query.

    Raises InvalidKey for an unknown, wrong, revoked or expired key, or a staff member who left.
    """
    public_id, secret = split_token(token)
    rows = ApiKey.objects.select_related("subscriber", "user")
    key = rows.filter(public_id=public_id).first() if public_id else None
    opens = admits(key, secret=secret, now=now)
    if key is None or not opens or not (key.user is None or key.user.is_active):
        raise InvalidKey("This key is unknown, revoked or expired; make a new one.")
    note_use([key], now=now)
    return key


def split_token(token: str) -> tuple[str, str]:
    """(public id, secret) of a bearer token; the public id is empty when it cannot be one."""
    public_id, _, secret = token.partition(".")
    # PostgreSQL text cannot hold a NUL, and nothing longer than a public id can be one.
    findable = len(public_id) <= 32 and public_id.isascii() and public_id.isalnum()
    return public_id if findable else "", secret


def admits(key: "StoredKey | ApiKey | None", *, secret: str, now: datetime) -> bool:
    """Whether the secret opens the key, and the key is in force.

    The comparison runs for unknown keys (None) too, so that time does not tell which ids exist.
    """
    matches = hmac.compare_digest(_hash(secret), key.secret_hash if key else _NO_HASH)
    return (
        matches
        and key is not None
        and key.revoked_at is None
        and (key.expires_at is None or key.expires_at > now)
    )


def note_use(used: "Iterable[StoredKey | ApiKey]", *, now: datetime) -> None:
    """Write the last use at most once a minute: a busy node must not rewrite its row each time."""
    before = now - _LAST_USED_STEP
    ids = [key.id for key in used if key.last_used_at is None or key.last_used_at <= before]
    if ids:
        stale = Q(last_used_at=None) | Q(last_used_at__lte=before)
        ApiKey.objects.filter(stale, id__in=ids).update(last_used_at=now)


def revoke(*, key_id: int, now: datetime) -> None:
    """Refuse the key from its next request on. Safe to repeat: the first time stays."""
    ApiKey.objects.filter(id=key_id, revoked_at=None).update(revoked_at=now)


def in_force(*, now: datetime) -> Q:
    """The condition of keys that authenticate would accept at `now`."""
    return Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=now))


def _checked_scopes(kind: str, scopes: Collection[str]) -> list[str]:
    possible = SCOPES[kind]
    unknown = sorted(set(scopes) - set(possible))
    if unknown or (kind == ApiKey.Kind.STAFF and not scopes):
        raise UnknownScope(
            f"A {kind} key cannot have: {', '.join(unknown) or 'no scope at all'}. "
            f"Choose from: {', '.join(possible)}."
        )
    return [scope for scope in possible if scope in scopes or not scopes]


def _check_room(subscriber_id: int, now: datetime) -> None:
    # The lock puts one subscriber's new keys in line, so the count cannot race.
    rows = Subscriber.objects.select_for_update(of=("self",), no_key=True)
    subscriber = rows.filter(id=subscriber_id).first()
    if subscriber is None or subscriber.state == Subscriber.State.TERMINATED:
        raise KeyOwnerGone(f"Subscriber {subscriber_id} is terminated or unknown.")
    if subscriber.api_keys.filter(in_force(now=now)).count() >= MAX_LIVING_KEYS:
        raise TooManyKeys(f"At most {MAX_LIVING_KEYS} keys at a time; revoke one first.")


def _new_public_id() -> str:
    # 13 bytes are 21 base32 characters; 20 of them carry 100 random bits.
    return "ak" + base64.b32encode(secrets.token_bytes(13)).decode().lower()[:20]


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
