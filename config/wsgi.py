"""The web process. Threads share a pool of database connections."""

import gc
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("DATABASE_POOL", "4")  # before settings are read; as many as threads

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

# What is loaded now stays, and a batch makes tens of thousands of small objects that no cycle
# holds: looking through them every 700 took a tenth of the time of a batch.
gc.collect()
gc.freeze()
gc.set_threshold(50_000, 20, 50)
