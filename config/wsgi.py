"""The web process. Threads share a pool of database connections."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("DATABASE_POOL", "4")  # before settings are read; as many as threads

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
