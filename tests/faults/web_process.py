"""The web process on a test's database and at a test's time; made to be killed.

Served as `granian tests.faults.web_process:application` with FAULTS_DATABASE and FAULTS_CLOCK.
"""

import os

os.environ["DATABASE_POOL"] = "5"  # before settings are read, as the `run` command has it

from django.conf import settings

settings.DATABASES["default"]["NAME"] = os.environ["FAULTS_DATABASE"]
settings.CLOCK_FILE = os.environ["FAULTS_CLOCK"]

from config.wsgi import application as application  # noqa: E402 (it reads the settings)
