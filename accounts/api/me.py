"""What subscribers and their own apps see: who am I, and my API keys."""

from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import keys
from accounts.api import shapes
from accounts.authentication import KeyAuthentication, PortalSessionAuthentication
from accounts.models import ApiKey
from accounts.pagination import NewestFirstPages
from accounts.permissions import IsSubscriber, subscriber_id_of, subscriber_of
from config import clock

SUBSCRIBER_AUTHENTICATION = [KeyAuthentication, PortalSessionAuthentication]


class Me(APIView):
    """The subscriber behind the key or session."""

    authentication_classes = SUBSCRIBER_AUTHENTICATION
    permission_classes = [IsSubscriber]

    @extend_schema(responses=shapes.MeOutput)
    def get(self, request: Request) -> Response:
        return Response(shapes.MeOutput(subscriber_of(request)).data)


class MyKeyCollection(GenericAPIView[ApiKey]):
    """My API keys: GET lists them, revoked ones too; POST makes one and shows its secret once."""

    authentication_classes = SUBSCRIBER_AUTHENTICATION
    permission_classes = [IsSubscriber]
    pagination_class = NewestFirstPages
    queryset = ApiKey.objects.all()
    serializer_class = shapes.KeyOutput

    @extend_schema(operation_id="me_keys_list", responses=shapes.KeyOutput(many=True))
    def get(self, request: Request) -> Response:
        mine = self.get_queryset().filter(subscriber_id=subscriber_id_of(request))
        page = self.paginate_queryset(mine)
        return self.get_paginated_response(shapes.KeyOutput(page, many=True).data)

    @extend_schema(request=shapes.KeyInput, responses={201: shapes.NewKeyOutput})
    def post(self, request: Request) -> Response:
        given = shapes.KeyInput(data=request.data)
        given.is_valid(raise_exception=True)
        wanted = set(given.validated_data["scopes"] or keys.SCOPES[ApiKey.Kind.SUBSCRIBER])
        # A key must not make one that may do more than itself.
        if isinstance(request.auth, ApiKey) and not wanted <= set(request.auth.scopes):
            raise PermissionDenied("This key cannot give scopes that it lacks.", "wrong_scope")
        key, token = keys.issue_key(
            kind=ApiKey.Kind.SUBSCRIBER,
            subscriber_id=subscriber_id_of(request),
            name=given.validated_data["name"],
            scopes=wanted,
            expires_at=given.validated_data["expires_at"],
            now=clock.now(),
        )
        return Response({**shapes.KeyOutput(key).data, "key": token}, status=201)


class MyKeyOne(APIView):
    """One of my API keys."""

    authentication_classes = SUBSCRIBER_AUTHENTICATION
    permission_classes = [IsSubscriber]

    @extend_schema(responses={204: None})
    def delete(self, request: Request, public_id: str) -> Response:
        """Revoke it: it is refused from the next request on."""
        mine = ApiKey.objects.filter(subscriber_id=subscriber_id_of(request))
        key = mine.filter(public_id=public_id).first()
        if key is None:
            raise NotFound("You have no such key.")
        keys.revoke(key_id=key.id, now=clock.now())
        return Response(status=204)
