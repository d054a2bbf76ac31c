#!/usr/bin/env python
"""Runs a management command, with the embedded servers up if the settings leave them to us."""

import os
import signal
import sys
from types import FrameType

# These look at code only; they need no server.
WITHOUT_SERVERS = {"", "help", "version", "compilemessages", "makemessages", "collectstatic"}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line

    command = sys.argv[1] if len(sys.argv) > 1 else ""
    asks_for_help = {"-h", "--help", "--version"} & set(sys.argv[1:])
    if command in WITHOUT_SERVERS or asks_for_help:
        execute_from_command_line(sys.argv)
        return

    from config.local.servers import local_servers

    # A polite end still gives the lease back; without this SIGTERM would leave the servers running.
    signal.signal(signal.SIGTERM, _leave)
    with local_servers():
        execute_from_command_line(sys.argv)


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # the end itself is not to be interrupted
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
