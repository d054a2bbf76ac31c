from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class UsageConfig(AppConfig):
    name = "usage"
    verbose_name = _("Usage")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Let the charging profile and the place in a pool follow their subscriber's life."""
        from accounts import lifecycle

        from .pools import leave_with_life
        from .profiles import follow_subscriber

        for follower in (follow_subscriber, leave_with_life):
            if follower not in lifecycle.FOLLOWERS:
                lifecycle.FOLLOWERS.append(follower)
