"""What was used: nodes, weights, events, buckets, the ledger and what enforcement does."""

from .balances import NEVER, Bucket, ChargingProfile, CycleOverage, LedgerEntry, Overage
from .enforcement import BlockChange, Notice
from .events import DroppedDay, EventKey, QuarantinedEvent, UsageBatch, UsageEvent, UsageTally
from .nodes import InferenceModel, Node, NodeKey, Weight

__all__ = [
    "NEVER",
    "BlockChange",
    "Bucket",
    "ChargingProfile",
    "CycleOverage",
    "DroppedDay",
    "EventKey",
    "InferenceModel",
    "LedgerEntry",
    "Node",
    "NodeKey",
    "Notice",
    "Overage",
    "QuarantinedEvent",
    "UsageBatch",
    "UsageEvent",
    "UsageTally",
    "Weight",
]
