"""What every command warns of at its start, beside Django's own checks."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register


@register(Tags.caches)
def limits_are_shared(**_: Any) -> list[CheckMessage]:
    """Tries and codes of signing in are counted in the cache; in memory every process has its own
    counts, and lets through as many as all should together."""
    if settings.CACHE_URL:
        return []
    hint = "Set CACHE_URL to a Valkey or Redis that all processes share."
    return [Warning("Each process limits sign-in codes for itself.", hint=hint, id="tokenpack.W1")]
