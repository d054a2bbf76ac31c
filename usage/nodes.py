"""Nodes and their keys: registered by staff, each speaking for its own sources."""

from collections.abc import Sequence
from datetime import datetime

from django.db import IntegrityError, transaction

from accounts.keys import issue_key
from accounts.models import ApiKey
from config.errors import DomainError

from .models import Node, NodeKey
from .webhooks import new_secret

NODE_SCOPES = ("usage:write", "quota:write", "feed:read")


class NodeExists(DomainError):
    """A node of this name is registered already."""

    code = "node_exists"
    status = 409
    title = "The node exists"


class NodeSwitchedOff(DomainError):
    """Staff switched the node off: it reports nothing and holds nothing until it is on again."""

    code = "node_switched_off"
    status = 403
    title = "The node is switched off"


@transaction.atomic
def create_node(
    *, name: str, now: datetime, cluster: str = "", sources: Sequence[str] = ()
) -> tuple[Node, str]:
    """Register a node and answer with its key, which is shown this once.

    Without `sources` the node reports under its own name. Raises NodeExists.
    """
    try:
        with transaction.atomic():
            node = Node.objects.create(
                name=name,
                cluster=cluster,
                sources=list(sources) or [name],
                callback_secret=new_secret(),
                created_at=now,
            )
    except IntegrityError:
        raise NodeExists(
            f"A node named {name!r} is registered; give it a further key, or choose another name."
        ) from None
    return node, add_key(node=node, now=now)


@transaction.atomic
def add_key(*, node: Node, now: datetime) -> str:
    """A further key for a node, to replace one without a gap; revoke the former afterwards."""
    api_key, token = issue_key(kind=ApiKey.Kind.NODE, name=node.name, scopes=NODE_SCOPES, now=now)
    NodeKey.objects.create(node=node, api_key=api_key)
    return token


def switch(*, node_id: int, active: bool) -> Node:
    """Let a node in or keep it out from now on; its keys stay, so that it can come back.

    What it held for sessions goes back when their time is over.
    """
    Node.objects.filter(id=node_id).update(active=active)
    return Node.objects.get(id=node_id)


def let_in(node: Node) -> Node:
    """The node itself; NodeSwitchedOff when staff keeps it out."""
    if not node.active:
        raise NodeSwitchedOff(
            f"Node {node.name!r} is switched off and nothing was stored. Keep what it has to "
            "report, have it switched on in the staff site, and send the same again."
        )
    return node
