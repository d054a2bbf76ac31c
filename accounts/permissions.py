"""What a caller may do: scopes of keys, and the subscriber behind a key or a session."""

from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.models import ApiKey, Subscriber, User


def scope_required(read: str, write: str | None = None) -> type[BasePermission]:
    """A permission class that asks for the scope `read`, or `write` for writing methods if given.

    Scopes are checked against the kind of key when a key is issued, so the scope alone decides.
    """

    class ScopeRequired(BasePermission):
        def has_permission(self, request: Request, view: APIView) -> bool:
            scope = read if write is None or request.method in SAFE_METHODS else write
            if not isinstance(request.auth, ApiKey):
                return False
            if scope not in request.auth.scopes:
                raise PermissionDenied(f"This key lacks the scope {scope}.", code="wrong_scope")
            return True

    return ScopeRequired


HasScope = scope_required


class IsSubscriber(BasePermission):
    """A subscriber's key (me:read to look, me:write to change) or the portal's session.

    A terminated subscriber may still read, for the last bill, and change nothing.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        subscriber = _subscriber_behind(request)
        if subscriber is None:
            return False
        reads = request.method in SAFE_METHODS
        scope = "me:read" if reads else "me:write"
        if isinstance(request.auth, ApiKey) and scope not in request.auth.scopes:
            raise PermissionDenied(f"This key lacks the scope {scope}.", code="wrong_scope")
        if not reads and subscriber.state == Subscriber.State.TERMINATED:
            raise PermissionDenied("This subscriber is terminated.", code="terminated")
        return True


def subscriber_of(request: Request) -> Subscriber:
    """The subscriber that IsSubscriber let in."""
    subscriber = _subscriber_behind(request)
    assert subscriber is not None, "the view lacks the permission class IsSubscriber"
    return subscriber


def subscriber_id_of(request: Request) -> int:
    """The id of the subscriber that IsSubscriber let in."""
    return subscriber_of(request).id


def actor_of(request: Request) -> str:
    """The name that an audited write carries: a user's name, or which key it was."""
    actor = getattr(request.user, "actor", None)
    return actor if isinstance(actor, str) else str(request.user.get_username())


def _subscriber_behind(request: Request) -> Subscriber | None:
    if isinstance(request.auth, ApiKey):
        return request.auth.subscriber
    if isinstance(request.user, User):
        return getattr(request.user, "subscriber", None)
    return None
