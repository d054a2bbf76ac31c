"""The portal's own pages: who is signed in, API keys, language, signing out.

Every page starts from the signed-in subscriber, so what is foreign is a 404 by construction.
"""

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.cache import add_never_cache_headers
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from accounts import keys, languages
from accounts.models import ApiKey, Subscriber
from config import clock
from config.errors import DomainError

P = ParamSpec("P")
SubscriberView = Callable[Concatenate[HttpRequest, Subscriber, P], HttpResponse]
# (subscriber, now) -> template and its context: a panel of the home page.
Panel = Callable[[Subscriber, datetime], tuple[str, dict[str, Any]]]

# What the apps above show on the home page, in this order; each adds its own when it is ready.
PANELS: list[Panel] = []


def subscriber_required(view: SubscriberView[P]) -> Callable[Concatenate[HttpRequest, P], Any]:
    """Hand the signed-in user's subscriber to the page; dates are shown in the billing zone."""

    @wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        user = request.user
        rows = Subscriber.objects.select_related("account")
        subscriber = rows.filter(user=user).first() if user.is_active else None
        if subscriber is None:
            return render(request, "accounts/not_a_subscriber.html", status=403)
        with timezone.override(settings.BILLING_TIME_ZONE):
            response = view(request, subscriber, *args, **kwargs)
        add_never_cache_headers(response)
        return response

    return guarded


def refused(request: HttpRequest, refusal: DomainError) -> None:
    """Tell the reader what to do about a refusal, in the reader's language."""
    texts = {
        "too_many_keys": _("You have as many keys as allowed. Revoke one first."),
        "key_owner_gone": _("This number is no longer in use."),
        "subscriber_not_active": _("The number is not active, so nothing can be bought for it."),
        "unknown_plan": _("This is no longer on sale."),
        "idempotency_conflict": _("This form was used already. Load the page and try again."),
        "nothing_due": _("Nothing is due: the invoice is paid."),
        "method_not_offered": _("This way of paying is not offered at the moment."),
        "already_subscribed": _("You hold a plan already."),
        "no_pool": _("There is no pool to add this to. Take a plan with a pool first."),
        "pool_refused": _("It is not clear which pool this goes into. Call customer service."),
        "payment_refused": _("The payment was refused. Try again or pay another way."),
        "payment_provider_away": _("The payment service does not answer. Try again in a minute."),
    }
    fallback = _("That did not work. Load the page and try again.")
    messages.error(request, texts.get(refusal.code, fallback))


@subscriber_required
@require_http_methods(["GET", "HEAD", "POST"])
def key_list(request: HttpRequest, subscriber: Subscriber) -> HttpResponse:
    """The subscriber's keys in force; POST makes one and shows its secret this once."""
    now = clock.now()
    secret = ""
    if request.method == "POST":
        name = request.POST.get("name", "").strip()[:60]
        try:
            _key, secret = keys.issue_key(
                kind=ApiKey.Kind.SUBSCRIBER, subscriber_id=subscriber.pk, name=name, now=now
            )
        except DomainError as refusal:
            refused(request, refusal)
    living = subscriber.api_keys.filter(keys.in_force(now=now)).order_by("-created_at")
    context = {"subscriber": subscriber, "keys": living, "secret": secret}
    return render(request, "accounts/keys.html", context)


@subscriber_required
@require_POST
def key_revoke(request: HttpRequest, subscriber: Subscriber, public_id: str) -> HttpResponse:
    """Refuse the key from now on."""
    key = get_object_or_404(subscriber.api_keys, public_id=public_id)
    keys.revoke(key_id=key.pk, now=clock.now())
    messages.success(request, _("The key is revoked. Apps that used it are refused from now on."))
    return redirect("portal-keys")


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session, or a sign-in that waits for its code."""
    logout(request)
    return redirect("account_request_login_code")


@require_POST
def choose_language(request: HttpRequest) -> HttpResponse:
    """Remember the language in a cookie, and with the number for messages."""
    language = request.POST.get("language", "")
    if language not in dict(settings.LANGUAGES):
        return HttpResponseBadRequest()
    subscriber = Subscriber.objects.filter(user_id=request.user.pk or 0).first()
    if subscriber is not None:
        languages.choose(subscriber_id=subscriber.pk, language=language)
    target = request.POST.get("next", "/")
    here = {request.get_host()}
    if not url_has_allowed_host_and_scheme(target, here, require_https=request.is_secure()):
        target = "/"
    response = HttpResponseRedirect(target)
    response.set_cookie(
        settings.LANGUAGE_COOKIE_NAME,
        language,
        max_age=365 * 24 * 3600,
        samesite="Lax",
        secure=request.is_secure(),
    )
    return response
