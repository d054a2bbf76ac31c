"""Addresses of this app: the API under /api/v1/, the pages of the customer portal."""

from django.urls import URLPattern, URLResolver, path

from accounts import portal, signing_in
from accounts.api import me, staff

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("accounts", staff.AccountCollection.as_view()),
    path("accounts/<int:account_id>", staff.AccountOne.as_view()),
    path("subscribers", staff.SubscriberCollection.as_view()),
    path("subscribers/<int:subscriber_id>", staff.SubscriberOne.as_view()),
    path("subscribers/<int:subscriber_id>/activate", staff.SubscriberActivate.as_view()),
    path("subscribers/<int:subscriber_id>/suspend", staff.SubscriberSuspend.as_view()),
    path("subscribers/<int:subscriber_id>/resume", staff.SubscriberResume.as_view()),
    path("subscribers/<int:subscriber_id>/terminate", staff.SubscriberTerminate.as_view()),
    path("subscribers/<int:subscriber_id>/number", staff.SubscriberNumber.as_view()),
    path("me", me.Me.as_view()),
    path("me/keys", me.MyKeyCollection.as_view()),
    path("me/keys/<str:public_id>", me.MyKeyOne.as_view()),
]
portal_urlpatterns: list[URLPattern | URLResolver] = [
    # The names are allauth's for its own flow, of which only these two pages are open: nobody
    # signs up, and staff sign in at the admin site.
    path("sign-in/", signing_in.NumberPage.as_view(), name="account_login"),
    path("sign-in/", signing_in.NumberPage.as_view(), name="account_request_login_code"),
    path("sign-in/code/", signing_in.CodePage.as_view(), name="account_confirm_login_code"),
    path("sign-out/", portal.sign_out, name="portal-signout"),
    path("language/", portal.choose_language, name="portal-language"),
    path("keys/", portal.key_list, name="portal-keys"),
    path("keys/<str:public_id>/revoke/", portal.key_revoke, name="portal-key-revoke"),
]
