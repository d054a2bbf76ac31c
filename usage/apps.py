from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class UsageConfig(AppConfig):
    name = "usage"
    verbose_name = _("Usage")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Let the charging profile follow its subscriber's life."""
        from accounts import lifecycle

        from .profiles import follow_subscriber

        if follow_subscriber not in lifecycle.FOLLOWERS:
            lifecycle.FOLLOWERS.append(follow_subscriber)
