"""The pages of this app in the staff site."""

from . import keys, subscribers, users

__all__ = ["keys", "subscribers", "users"]
