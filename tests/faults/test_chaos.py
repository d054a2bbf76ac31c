"""The short form of `make chaos`: one kill of each kind under load, then the whole proof."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST_SECONDS = 280  # on a machine where a start takes half a minute


def test_whatever_is_killed_each_event_counts_once() -> None:
    """On servers of its own, since it kills them; its last lines say what differs, and the seed."""
    folder = Path(os.environ["VAR_DIR"]) / f"chaos-{os.getpid()}"
    command = [sys.executable, "-m", "tests.faults.chaos", "--short", "--discard"]
    done = subprocess.run(
        [*command, "--folder", str(folder)], capture_output=True, text=True, cwd=ROOT,
        timeout=LONGEST_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "proven: exactly once" in done.stdout
    assert not folder.exists()
