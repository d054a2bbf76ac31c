"""The project's settings on a database of the benchmarks, with the usual app beside it."""

import os

from config.settings import *  # noqa: F403
from config.settings import DATABASE, INSTALLED_APPS

DATABASE["NAME"] = os.environ.get("BENCH_DATABASE", "tokenpack")
INSTALLED_APPS = [*INSTALLED_APPS, "tests.bench.naive"]
ROOT_URLCONF = "tests.bench.urls"
