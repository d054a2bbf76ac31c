"""The pages of this app in the staff site."""

from . import invoices, payments, proof

__all__ = ["invoices", "payments", "proof"]
