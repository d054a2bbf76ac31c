"""What nodes count themselves and what they were told: looked at only."""

from typing import Any

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from config.admin import ReadOnlyAdmin, display

from ..models import Callback, NodeCounter
from .filters import NamingAdmin, NodeFilter


@admin.register(NodeCounter)
class NodeCounterAdmin(NamingAdmin, ReadOnlyAdmin):
    list_display = ("at", "node_name", "model", "input_tokens", "output_tokens", "reset")
    list_filter = (NodeFilter,)
    search_ids = ("id", "node_id")
    sortable_by = ()

    @display(description=_("Node"))
    def node_name(self, sample: Any) -> str:
        return str(sample.node_name)


@admin.register(Callback)
class CallbackAdmin(NamingAdmin, ReadOnlyAdmin):
    list_display = ("id", "created_at", "node_name", "kind", "state_label", "attempts", "sent_at")
    list_filter = (NodeFilter, "state", "kind")
    search_ids = ("id", "session_id")
    sortable_by = ()

    @display(description=_("Node"))
    def node_name(self, callback: Any) -> str:
        return str(callback.node_name)

    @display(
        description=_("State"), label={"waiting": "warning", "sent": "success", "failed": "danger"}
    )
    def state_label(self, callback: Callback) -> tuple[str, str]:
        return callback.state, callback.get_state_display()
