"""The pages of this app in the staff site."""

from . import balances, events, intake, nodes, overage

__all__ = ["balances", "events", "intake", "nodes", "overage"]
