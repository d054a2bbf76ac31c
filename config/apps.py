"""The project's own app: commands of the whole, the page frame, translations."""

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    name = "config"
    label = "config"
    verbose_name = "Tokenpack"

    def ready(self) -> None:
        import config.celery  # noqa: F401 (makes it the app that shared tasks go to)
        import config.checks  # noqa: F401 (registers them)
        from config.columns import label_fields

        label_fields()
