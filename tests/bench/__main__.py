"""`python -m tests.bench [--only KEY] [--quick]`: runs, prints and records the benchmarks."""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Status 1 when a benchmark did not run; one that misses its goal is a result like others."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", metavar="KEY", help="run this benchmark alone (ONLY=KEY)")
    parser.add_argument(
        "--quick", action="store_true", help="shorter, without growth_20m (QUICK=1)"
    )
    options = parser.parse_args()
    # Own servers in a folder of their own; whatever else runs is not touched.
    var = Path(os.environ.get("VAR_DIR", ROOT / "var")).absolute() / "bench"
    os.environ |= {"VAR_DIR": str(var), "CLOCK_FILE": "", "DATABASE_URL": "", "BROKER_URL": ""}
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.bench.settings"
    os.environ.setdefault("LOG_LEVEL", "WARNING")
    import django

    django.setup()
    from tests.bench.running import run_all

    return run_all(only=options.only, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
