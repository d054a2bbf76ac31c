"""What is owed: hands the tax rates to the loader of the catalogue."""

from datetime import datetime

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class InvoicingConfig(AppConfig):
    name = "invoicing"
    verbose_name = _("Invoicing")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts.portal import PANELS
        from invoicing.portal import due_panel
        from plans import catalogue

        PANELS.insert(0, due_panel)
        catalogue.LOADERS.append(load_taxes)


def load_taxes(now: datetime) -> str:
    """Load the shipped VAT rates with the catalogue."""
    from invoicing import taxes

    return f"{taxes.load(now=now)} new VAT rates"
