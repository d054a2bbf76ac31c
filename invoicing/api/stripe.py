"""Where the payment provider's messages arrive: stored first, then handled."""

import logging

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from config import clock

from .. import webhooks

SIGNATURE = OpenApiParameter("Stripe-Signature", str, OpenApiParameter.HEADER, required=True)
logger = logging.getLogger(__name__)


class StripeWebhook(APIView):
    """A signed message of Stripe. Once it is stored the answer is 200, whatever follows."""

    authentication_classes = []
    permission_classes = [AllowAny]

    @extend_schema(
        operation_id="webhooks_stripe",
        request=OpenApiTypes.OBJECT,
        parameters=[SIGNATURE],
        responses={200: OpenApiTypes.OBJECT},
    )
    def post(self, request: Request) -> Response:
        now = clock.now()
        # The signature is over the bytes, so they are read before any parser sees them.
        event = webhooks.receive(
            payload=request._request.body,
            signature=request.headers.get("Stripe-Signature", ""),
            now=now,
        )
        try:
            webhooks.handle(event_id=event.pk, now=now)
        except Exception:
            # The stored message is the queue: beat finds what is not handled within a minute.
            logger.exception("webhook %s is stored and will be handled later", event.pk)
        return Response({"received": True})
