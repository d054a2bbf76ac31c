"""The secret key of a data folder, made once."""

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key

from config.local.layout import make_private


def kept_in(var: Path) -> str:
    """The secret kept in this data folder; made on first use, readable by its owner only."""
    path = var / "secret_key"
    if not path.exists():
        make_private(var, mode=0o755)
        half = var / f"secret_key.{os.getpid()}"
        handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(get_random_secret_key())
        try:
            os.link(half, path)  # of two processes at once the first one's secret stays
        except FileExistsError:
            pass
        finally:
            half.unlink()
    return path.read_text()
