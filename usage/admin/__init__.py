"""The pages of this app in the staff site."""

from . import (
    balances,
    corrections,
    events,
    intake,
    members,
    movements,
    nodes,
    overage,
    pools,
    quota,
    watching,
    weighing,
)

__all__ = [
    "balances",
    "corrections",
    "events",
    "intake",
    "members",
    "movements",
    "nodes",
    "overage",
    "pools",
    "quota",
    "watching",
    "weighing",
]
