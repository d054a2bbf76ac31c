"""The timetable of background work. Each entry may run twice or be killed; times are Shanghai's."""

from typing import Any

from celery.schedules import crontab

BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    # A month begins at 00:00; what a minute misses the next one finds.
    "renew-subscriptions": {"task": "plans.tasks.renew_subscriptions", "schedule": 60.0},
    "sweep-blocks": {"task": "usage.tasks.sweep_blocks", "schedule": 30.0},
    "close-buckets": {"task": "usage.tasks.close_buckets", "schedule": 60.0},
    "care-for-partitions": {
        "task": "usage.tasks.care_for_partitions",
        "schedule": crontab(minute="40"),
    },
    "deliver-messages": {"task": "accounts.tasks.deliver_messages", "schedule": 10.0},
    # On the 1st from 02:00; asks every hour, so a killed run goes on and a done one is left alone.
    "issue-invoices": {
        "task": "invoicing.tasks.issue_invoices",
        "schedule": crontab(minute="5"),
    },
    "assure-yesterday": {
        "task": "invoicing.tasks.assure_yesterday",
        "schedule": crontab(hour="4", minute="20"),
    },
    "settle-payments": {"task": "invoicing.tasks.settle_payments", "schedule": 60.0},
    "cancel-unpaid-orders": {
        "task": "invoicing.tasks.cancel_unpaid_orders",
        "schedule": crontab(minute="50"),
    },
    "continue-reratings": {"task": "usage.tasks.continue_reratings", "schedule": 60.0},
    # Nodes that do not answer make a round longer than that; those that waited in vain are dropped.
    "deliver-callbacks": {
        "task": "usage.tasks.deliver_callbacks",
        "schedule": 5.0,
        "options": {"expires": 5.0},
    },
    "purge-watching": {"task": "usage.tasks.purge_watching", "schedule": crontab(minute="40")},
    "look-at-sequences": {
        "task": "usage.tasks.look_at_sequences",
        "schedule": crontab(minute="45"),
    },
    "expire-quota-sessions": {"task": "usage.tasks.expire_sessions", "schedule": 10.0},
    "forget-quota-answers": {
        "task": "usage.tasks.forget_quota_answers",
        "schedule": crontab(minute="35"),
    },
}
