"""The timetable of background work. Each entry may run twice or be killed; times are Shanghai's."""

from typing import Any

BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    # A month begins at 00:00; what a minute misses the next one finds.
    "renew-subscriptions": {"task": "plans.tasks.renew_subscriptions", "schedule": 60.0},
    "deliver-messages": {"task": "accounts.tasks.deliver_messages", "schedule": 10.0},
}
