"""Which nodes are calling: their bearer tokens, checked by one statement for all of them."""

from collections.abc import Sequence
from datetime import datetime

from accounts import keys

from .database import fast_cursor
from .models import Node

# The keys of nodes that are switched on, with the nodes they speak for.
CALLERS = """
    SELECT key.public_id, key.id, key.secret_hash, key.scopes, key.expires_at, key.revoked_at,
           key.last_used_at, node.id, node.name, node.sources
      FROM accounts_apikey AS key
      JOIN usage_nodekey AS held ON held.api_key_id = key.id
      JOIN usage_node AS node ON node.id = held.node_id
     WHERE key.public_id = ANY(%(public_ids)s) AND node.active
     ORDER BY key.public_id
"""


class NotAdmitted(Exception):
    """The token is no node's key in force that may ask for this; nothing of it was stored."""


def admitted(tokens: Sequence[str], *, scope: str, now: datetime) -> list[Node | None]:
    """The node behind each token, None where it may not do what the scope stands for.

    It is not told why: whoever needs to know asks `accounts.keys.authenticate`.
    """
    parts = {token: keys.split_token(token) for token in tokens}
    public_ids = sorted({public_id for public_id, _secret in parts.values() if public_id})
    with fast_cursor() as cursor:
        rows = cursor.execute(CALLERS, {"public_ids": public_ids}, prepare=True).fetchall()
    found = {
        row[0]: (keys.StoredKey(*row[1:7]), Node(pk=row[7], name=row[8], sources=row[9]))
        for row in rows
    }
    nodes: dict[str, Node | None] = {}
    used = {}
    for token, (public_id, secret) in parts.items():
        key, node = found.get(public_id, (None, None))
        admits = keys.admits(key, secret=secret, now=now)
        nodes[token] = node if key is not None and admits and scope in key.scopes else None
        if key is not None and admits:
            used[key.id] = key
    keys.note_use(used.values(), now=now)
    return [nodes[token] for token in tokens]
