"""The project's settings with a data folder, a hasher and a mailbox for tests."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
os.environ["VAR_DIR"] = str(Path(os.environ.get("VAR_DIR", BASE_DIR / "var")).absolute() / "test")
os.environ["CLOCK_FILE"] = ""
os.environ["LOG_FORMAT"] = "console"

from config.settings import *  # noqa: E402, F403

SECRET_KEY = "for-tests-only"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
