"""The timetable of background work. Each entry may run twice or be killed; times are Shanghai's."""

from typing import Any

BEAT_SCHEDULE: dict[str, dict[str, Any]] = {}
