"""A process that ingests batches and says which are acknowledged; made to be killed.

Started as `python -m tests.faults.collector_process DATABASE NODE_ID NOW`; reads one batch a line
(a JSON array of events) and answers each with its number.
"""

import json
import sys
from datetime import datetime


def main() -> None:
    """Ingest every line of standard input, in order."""
    import django
    from django.conf import settings

    database, node_id, now = sys.argv[1:]
    settings.DATABASES["default"]["NAME"] = database
    django.setup()
    from usage.ingest import ingest
    from usage.models import Node

    node = Node.objects.get(pk=int(node_id))
    for number, line in enumerate(sys.stdin):
        events = [json.dumps(one).encode() for one in json.loads(line)]
        ingest(node=node, events=events, now=datetime.fromisoformat(now))
        print(number, flush=True)


if __name__ == "__main__":
    main()
