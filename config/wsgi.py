"""The web process. Threads share a pool of database connections."""

import gc
import os
import sys
from typing import TYPE_CHECKING

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("DATABASE_POOL", "11")  # before settings are read; see config/local/programs

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from config.local.layout import make_private

if TYPE_CHECKING:
    from usage.api.short_way import Application


def _application() -> "Application":
    django = get_wsgi_application()
    # What these import asks for apps that are ready.
    from usage import lanes
    from usage.api import ways

    own = lanes.ALONE
    if settings.WEB_LANES:
        make_private(settings.LAYOUT.lanes)
        own = lanes.of_this_machine(settings.LAYOUT.lanes)
    return ways.in_front_of(django, connections=settings.DATABASE_POOL, lanes=own)


application = _application()

# What is loaded now stays, and a batch makes tens of thousands of small objects that no cycle
# holds: looking through them every 700 took a tenth of the time of a batch.
gc.collect()
gc.freeze()
gc.set_threshold(200_000, 20, 50)

# A request goes to the database a dozen times, and each time waits for whoever computes: with the
# usual 5 ms, small requests stood behind large batches.
sys.setswitchinterval(0.0005)
