"""Who is calling the API: a bearer key, or a subscriber signed in to the portal."""

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import (
    BaseAuthentication,
    SessionAuthentication,
    get_authorization_header,
)
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts import keys
from accounts.models import ApiKey
from config import clock


@dataclass(frozen=True, slots=True)
class KeyPrincipal:
    """The caller behind a key; it stands where Django expects a user."""

    api_key: ApiKey
    is_authenticated: bool = True
    is_anonymous: bool = False
    is_active: bool = True
    is_staff: bool = False

    @property
    def pk(self) -> str:
        return f"key:{self.api_key.pk}"

    @property
    def subscriber_id(self) -> int | None:
        return self.api_key.subscriber_id

    @property
    def actor(self) -> str:
        """The name that audited writes carry."""
        if self.api_key.user is not None:
            return self.api_key.user.get_username()
        return f"{self.api_key.kind} key {self.api_key.public_id}"


def bearer_token(header: str) -> str | None:
    """The token in an Authorization header; None when it is of another scheme."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class KeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer <key>`. One query: a revoked key is refused at once."""

    def authenticate(self, request: Request) -> tuple[KeyPrincipal, ApiKey] | None:
        token = bearer_token(get_authorization_header(request).decode("latin-1"))
        if token is None:
            return None
        try:
            key = keys.authenticate(token=token, now=clock.now())
        except keys.InvalidKey as refusal:
            # DRF adds the WWW-Authenticate header only to its own exception.
            raise AuthenticationFailed(str(refusal), code=refusal.code) from refusal
        return KeyPrincipal(key), key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class PortalSessionAuthentication(SessionAuthentication):
    """The portal's session, with CSRF checks, for users that are subscribers. Staff is not."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        signed_in = super().authenticate(request)
        if signed_in is None:
            return None
        try:
            _ = signed_in[0].subscriber
        except ObjectDoesNotExist:
            return None
        return signed_in[0], None


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describes the bearer key in the API schema."""

    target_class = KeyAuthentication
    name = "key"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "A node, subscriber or staff key",
        }


class PortalSessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describes the portal's session in the API schema."""

    target_class = PortalSessionAuthentication
    name = "portalSession"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}
