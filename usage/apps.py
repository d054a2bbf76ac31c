from django.apps import AppConfig


class UsageConfig(AppConfig):
    name = "usage"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Let the charging profile follow its subscriber's life."""
        from accounts import lifecycle

        from .profiles import follow_subscriber

        if follow_subscriber not in lifecycle.FOLLOWERS:
            lifecycle.FOLLOWERS.append(follow_subscriber)
