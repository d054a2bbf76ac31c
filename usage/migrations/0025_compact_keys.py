"""Event keys become short: a UUID and a tag instead of the plain text of source and id.

Goes through the table in steps, each its own transaction, and touches only rows of the old kind
(their content is 16 bytes long); so it can be stopped and run again. Stop the web servers and
workers of the former version before: a key that they write meanwhile would not be recognised.
There is no way back, since the text is gone: the former version would count repeats again.
"""

import re
from hashlib import blake2b

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

BLOCKS = 64  # of the table in one step: about 5,000 keys

SIZE = "SELECT pg_relation_size('usage_eventkey') / current_setting('block_size')::int"
OLD_KEYS = """
    SELECT stored.key
      FROM usage_eventkey AS stored
     WHERE stored.ctid >= %(first)s::tid AND stored.ctid < %(last)s::tid
       AND octet_length(stored.content) = 16
"""
REWRITE = """
    UPDATE usage_eventkey AS stored
       SET key = known.short, content = substr(stored.content, 1, 11)
      FROM unnest(%(keys)s::bytea[], %(shorts)s::bytea[]) AS known (key, short)
     WHERE stored.key = known.key AND octet_length(stored.content) = 16
"""

# As in usage.identity when this was written; a later change of it must not change the past.
DASHED = "-".join(f"[0-9a-f]{{{digits}}}" for digits in (8, 4, 4, 4, 12))
hex_at = re.compile("([0-9a-f]{32})").fullmatch
dashed_at = re.compile(f"({DASHED})").fullmatch
spelled = re.compile(
    rf"([0-9a-f]{{32}}|{DASHED}|[0-9A-F]{{32}}|{DASHED.replace('a-f', 'A-F')})"
    r"(?:[-_.:][0-9]{1,3})?\Z"
).search
words = re.compile("(?:[^0-9]*[^0-9A-Za-z])?").fullmatch


def short_of(key: bytes) -> bytes:
    """The short key of a `source\\0id`."""
    source, _, id = key.decode().partition("\0")
    end = len(id)
    if found := hex_at(id, end - 32):
        prefix, spelling = id[: end - 32], "x32"
    elif found := dashed_at(id, end - 36):
        prefix, spelling = id[: end - 36], "x36"
    elif found := spelled(id):
        digits = found[1]
        prefix, suffix = id[: found.start()], id[found.start() + len(digits) :]
        spelling = f"{'X' if digits.isupper() else 'x'}{len(digits)}{suffix}"
    if found and (tag := tag_of(source, prefix, spelling)):
        return bytes.fromhex(found[1].replace("-", "")) + tag
    text = tag_of(source, "", "text") + id.encode()
    return text + b"\0" if len(text) == 23 else text


def tag_of(source: str, prefix: str, spelling: str) -> bytes:
    if not words(prefix):
        return b""
    return blake2b(f"{source}\0{prefix}\0{spelling}".encode(), digest_size=7).digest()


def shorten(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        cursor.execute(SIZE)
        blocks = cursor.fetchone()[0]
        # Rows that are written anew land behind or before; either way they are of the new kind.
        for first in range(0, blocks, BLOCKS):
            step = {"first": f"({first},0)", "last": f"({first + BLOCKS},0)"}
            cursor.execute(OLD_KEYS, step)
            keys = sorted(bytes(key) for (key,) in cursor.fetchall())
            cursor.execute(REWRITE, {"keys": keys, "shorts": [short_of(key) for key in keys]})


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("usage", "0024_partitions_move_balances")]

    operations = [migrations.RunPython(shorten)]
