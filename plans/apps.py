"""What was sold: wires this app to the life of subscribers below it."""

from django.apps import AppConfig


class PlansConfig(AppConfig):
    name = "plans"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts import lifecycle
        from accounts.portal import PANELS
        from plans import subscribing
        from plans.portal import packs_panel

        PANELS.append(packs_panel)
        lifecycle.FOLLOWERS.append(subscribing.end_with_subscriber)
