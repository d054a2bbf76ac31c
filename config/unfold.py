"""How the staff site looks and what its sidebar offers; each entry shows to whom may see it."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy
from django.utils.translation import gettext_lazy as _


def _may(permission: str) -> Callable[[HttpRequest], bool]:
    def permitted(request: HttpRequest) -> bool:
        return request.user.has_perm(permission)

    return permitted


def _page(app: str, model: str, title: Any, icon: str) -> dict[str, Any]:
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{model}_changelist"),
        "permission": _may(f"{app}.view_{model}"),
    }


def _group(title: Any, *pages: dict[str, Any], folded: bool = False) -> dict[str, Any]:
    return {"title": title, "collapsible": folded, "items": list(pages)}


def _superuser(request: HttpRequest) -> bool:
    return bool(getattr(request.user, "is_superuser", False))


def _favicon(request: HttpRequest) -> str:
    return static("portal/favicon.svg")


def _stylesheet(request: HttpRequest) -> str:
    return static("staff/staff.css")


USER_PAGES = [
    {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{name}_changelist"),
        "permission": _superuser,
    }
    for title, icon, name in (
        (_("Users"), "person", "accounts_user"),
        (_("Roles"), "shield_person", "auth_group"),
    )
]

NAVIGATION = [
    {
        "items": [
            {
                "title": _("Overview"),
                "icon": "dashboard",
                "link": reverse_lazy("admin:index"),
            }
        ]
    },
    _group(
        _("Customers"),
        _page("accounts", "subscriber", _("Subscribers"), "sim_card"),
        _page("accounts", "account", _("Accounts"), "account_balance_wallet"),
        _page("plans", "subscription", _("Subscriptions"), "autorenew"),
        _page("plans", "order", _("Orders"), "shopping_cart"),
        _page("accounts", "outboxmessage", _("Messages"), "sms"),
    ),
    _group(
        _("Usage"),
        _page("usage", "usageevent", _("Events"), "bolt"),
        _page("usage", "usagebatch", _("Batches"), "inbox"),
        _page("usage", "quarantinedevent", _("Quarantine"), "coronavirus"),
        _page("usage", "nodecounter", _("Node counters"), "speed"),
        _page("usage", "callback", _("Callbacks"), "call_made"),
        _page("usage", "amendment", _("Amendments"), "edit_note"),
        _page("usage", "rerating", _("Reratings"), "calculate"),
        _page("usage", "quotasession", _("Quota sessions"), "hourglass_top"),
        _page("usage", "usagelimit", _("Limits"), "speed"),
        _page("usage", "bucket", _("Buckets"), "water_drop"),
        _page("usage", "pool", _("Pools"), "groups"),
        _page("usage", "poolmember", _("Pool members"), "group"),
        _page("usage", "movement", _("Movements"), "swap_vert"),
        _page("usage", "ledgerentry", _("Ledger"), "menu_book"),
        _page("usage", "overage", _("Overage"), "trending_up"),
        _page("usage", "blockchange", _("Exhausted feed"), "block"),
        _page("usage", "chargingprofile", _("Charging profiles"), "tune"),
    ),
    _group(
        _("Money"),
        _page("invoicing", "invoice", _("Invoices"), "receipt_long"),
        _page("invoicing", "payment", _("Payments"), "payments"),
        _page("plans", "charge", _("Charges"), "sell"),
        _page("invoicing", "billrun", _("Bill runs"), "event_repeat"),
        _page("invoicing", "assuranceresult", _("Assurance"), "balance"),
        _page("invoicing", "webhookevent", _("Webhook events"), "webhook"),
        _page("invoicing", "taxrate", _("Tax rates"), "percent"),
    ),
    _group(
        _("Catalogue"),
        _page("plans", "plan", _("Plans"), "inventory_2"),
        _page("plans", "planversion", _("Plan versions"), "history"),
        _page("usage", "inferencemodel", _("Models"), "neurology"),
        _page("usage", "weight", _("Weights"), "scale"),
        _page("usage", "node", _("Nodes"), "dns"),
    ),
    _group(
        _("Access"),
        *USER_PAGES,
        _page("accounts", "apikey", _("API keys"), "key"),
        _page("accounts", "subscribertransition", _("Transitions"), "history_edu"),
    ),
]

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Tokenpack",
    "SITE_HEADER": "Tokenpack",
    "SITE_SUBHEADER": _("Carrier billing for AI tokens"),
    "SITE_SYMBOL": "token",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": _favicon}],
    "STYLES": [_stylesheet],
    "SHOW_LANGUAGES": True,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "config.dashboard.fill",
    "BORDER_RADIUS": "8px",
    "COLORS": {
        "primary": {
            "50": "oklch(97.2% .02 200)",
            "100": "oklch(93.8% .04 200)",
            "200": "oklch(87.5% .07 205)",
            "300": "oklch(79% .1 210)",
            "400": "oklch(69% .12 218)",
            "500": "oklch(60% .13 228)",
            "600": "oklch(52% .13 235)",
            "700": "oklch(45% .12 238)",
            "800": "oklch(38.5% .1 240)",
            "900": "oklch(33% .08 242)",
            "950": "oklch(25% .06 244)",
        }
    },
    "SIDEBAR": {"show_search": True, "show_all_applications": False, "navigation": NAVIGATION},
}
