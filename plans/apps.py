"""What was sold: wires this app to the life of subscribers below it."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class PlansConfig(AppConfig):
    name = "plans"
    verbose_name = _("Plans")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts import lifecycle
        from accounts.portal import PANELS
        from plans import subscribing
        from plans.portal import packs_panel

        PANELS.append(packs_panel)
        lifecycle.FOLLOWERS.append(subscribing.end_with_subscriber)
