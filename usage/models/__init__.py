"""What was used: nodes, weights, events, buckets, the ledger and what enforcement does."""

from .balances import NEVER, Bucket, ChargingProfile, CycleOverage, LedgerEntry, Overage
from .corrections import Amendment, Movement, Rerating
from .enforcement import BlockChange, Notice
from .events import (
    DroppedDay,
    EventKey,
    QuarantinedEvent,
    UsageBatch,
    UsageEvent,
    UsageTally,
)
from .nodes import InferenceModel, Node, NodeKey, SequenceMark, Weight
from .pools import UNCAPPED, Pool, PoolMember, PoolUsage
from .quota import LimitUsage, QuotaAnswer, QuotaSession, UsageLimit
from .watching import Callback, NodeCounter

__all__ = [
    "NEVER",
    "UNCAPPED",
    "Amendment",
    "BlockChange",
    "Bucket",
    "Callback",
    "ChargingProfile",
    "CycleOverage",
    "DroppedDay",
    "EventKey",
    "InferenceModel",
    "LedgerEntry",
    "LimitUsage",
    "Movement",
    "Node",
    "NodeCounter",
    "NodeKey",
    "Notice",
    "Overage",
    "Pool",
    "PoolMember",
    "PoolUsage",
    "QuarantinedEvent",
    "QuotaAnswer",
    "QuotaSession",
    "Rerating",
    "SequenceMark",
    "UsageBatch",
    "UsageEvent",
    "UsageLimit",
    "UsageTally",
    "Weight",
]
