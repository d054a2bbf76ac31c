"""All settings, from the environment or .env (see .env.example); the defaults are safe ones."""

import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django_stubs_ext
import environ

from config.local import layout, secret
from config.logs import logging_settings
from config.schedule import BEAT_SCHEDULE
from config.unfold import UNFOLD as UNFOLD

# Lets annotations name what a queryset, paginator or admin class holds, at run time too.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
env.read_env(BASE_DIR / ".env")  # a missing file is fine; real variables win over it

# --- where things lie --------------------------------------------------------------------------
VAR_DIR = Path(env("VAR_DIR", default=str(BASE_DIR / "var"))).absolute()
LAYOUT = layout.of(VAR_DIR)
PORT = env.int("PORT", default=8000)
HOST = env("HOST", default="127.0.0.1")
PUBLIC_URL = env("PUBLIC_URL", default=f"http://localhost:{PORT}").rstrip("/")
REGION = env("REGION", default="")  # one operating company; prefixes cache keys and queue names

# With an address given from outside, the embedded server is never touched.
EMBEDDED_POSTGRES = not env("DATABASE_URL", default="")
EMBEDDED_VALKEY = not env("BROKER_URL", default="")

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env("SECRET_KEY", default="")
if not SECRET_KEY and EMBEDDED_POSTGRES:
    SECRET_KEY = secret.kept_in(LAYOUT.var)
if not SECRET_KEY:
    raise environ.ImproperlyConfigured("Set SECRET_KEY: a server of your own needs its own secret")

# --- database, broker, cache -------------------------------------------------------------------
WEB_LANES = env.int("WEB_LANES", default=0)  # web processes that share out the subscribers
DATABASE_POOL = env.int("DATABASE_POOL", default=0)  # connections a process; web sets it (wsgi.py)
STATEMENT_TIMEOUT_MS = env.int("STATEMENT_TIMEOUT_MS", default=30_000)
LOCK_TIMEOUT_MS = env.int("LOCK_TIMEOUT_MS", default=5_000)
DATABASE: dict[str, Any] = (
    {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "tokenpack",
        "USER": "tokenpack",
        "HOST": str(LAYOUT.sockets),
        "PORT": "5432",
    }
    if EMBEDDED_POSTGRES
    else env.db("DATABASE_URL")
)
PREPARE_THRESHOLD = env("PREPARE_THRESHOLD", default="5")
DATABASE["CONN_HEALTH_CHECKS"] = True
DATABASE["CONN_MAX_AGE"] = 0 if DATABASE_POOL else env.int("CONN_MAX_AGE", default=60)
DATABASE["OPTIONS"] = {
    **DATABASE.get("OPTIONS", {}),
    "application_name": "tokenpack",
    # Statements of the hot path are prepared on first use (set to "" behind an old pgbouncer).
    "prepare_threshold": int(PREPARE_THRESHOLD) if PREPARE_THRESHOLD else None,
    "connect_timeout": 5,
    # Every wait has an end. A pgbouncer in transaction mode refuses these; set both to 0 there.
    "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
    if STATEMENT_TIMEOUT_MS or LOCK_TIMEOUT_MS
    else "",
}
if DATABASE_POOL:
    DATABASE["OPTIONS"]["pool"] = {"min_size": 1, "max_size": DATABASE_POOL, "timeout": 10}
DATABASES = {"default": DATABASE}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

BROKER_URL = env("BROKER_URL", default="") or f"redis+socket://{LAYOUT.valkey_socket}"


def _cache_beside(broker_url: str) -> str:
    """The next database of the same Valkey; empty (memory of each process) for other brokers."""
    if EMBEDDED_VALKEY:
        return f"unix://{LAYOUT.valkey_socket}?db=1"
    address = urlsplit(broker_url)
    return address._replace(path="/1").geturl() if address.scheme in {"redis", "rediss"} else ""


CACHE_URL = env("CACHE_URL", default=_cache_beside(BROKER_URL))
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache"
        if CACHE_URL
        else "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": CACHE_URL,
        "KEY_PREFIX": f"tokenpack:{REGION}",
    }
}

# --- the program -------------------------------------------------------------------------------
INSTALLED_APPS = [
    "accounts",
    "usage",
    "plans",
    "invoicing",
    "config",
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "django_htmx",
    "phonenumber_field",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]
MIDDLEWARE = [
    "config.metrics.RequestMetrics",
    "config.security.ContentSecurityPolicy",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "config.security.NoNullCharacters",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "config.zone.StaffReadBillingTime",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "config" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"
STATIC_ROOT = env("STATIC_ROOT", default=None)  # only for those who collect for a web server
STATICFILES_DIRS = [BASE_DIR / "config" / "static"]
WHITENOISE_USE_FINDERS = True  # files are served from where they lie; nothing needs collecting

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator")
]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_ADAPTER = "accounts.adapter.PhoneAdapter"
ACCOUNT_LOGIN_METHODS = {"phone", "username"}  # subscribers by number and code, staff by name
ACCOUNT_SIGNUP_FIELDS = ["phone*"]  # nobody signs up by themselves; allauth wants the two to fit
ACCOUNT_PHONE_VERIFICATION_ENABLED = False  # the carrier vouches for its numbers
ACCOUNT_LOGIN_BY_CODE_ENABLED = True
ACCOUNT_LOGIN_BY_CODE_TIMEOUT = 300
ACCOUNT_LOGIN_BY_CODE_MAX_ATTEMPTS = 5
ACCOUNT_LOGIN_BY_CODE_SUPPORTS_RESEND = True
# By number: three codes a minute, twelve an hour; five tries each of a million.
ACCOUNT_RATE_LIMITS = {"request_login_code": "30/m/ip,3/m/key,12/h/key"}
DEMO_CODE = env("DEMO_CODE", default="")  # a known sign-in code, for the demo only
LOGIN_URL = "/sign-in/"
LOGIN_REDIRECT_URL = "/"

# --- language and time -------------------------------------------------------------------------
LANGUAGE_CODE = "zh-hans"
LANGUAGES = [("zh-hans", "简体中文"), ("en", "English")]
FORMAT_MODULE_PATH = "config.formats"
LOCALE_PATHS = [BASE_DIR / "config" / "locale"]
USE_TZ = True
TIME_ZONE = "UTC"  # stored and computed in UTC; months are cut in BILLING_TIME_ZONE
BILLING_TIME_ZONE = "Asia/Shanghai"
PHONENUMBER_DEFAULT_REGION = "CN"
PHONENUMBER_DEFAULT_FORMAT = "E164"

# --- API ---------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "config.errors.exception_handler",
    "UNICODE_JSON": True,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Tokenpack",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    # Several things have a state or a kind; each gets a name that says whose.
    "ENUM_NAME_OVERRIDES": {
        "AccountKind": "accounts.models.Account.Kind",
        "PoolKind": "usage.models.Pool.Kind",
        "AmendmentKind": "usage.models.Amendment.Kind",
        "MovementKind": "usage.models.Movement.Kind",
        "BucketKind": "usage.models.Bucket.Kind",
        "OrderState": "plans.models.Order.State",
        "SubscriberState": "accounts.models.Subscriber.State",
        "PaymentAttemptState": "invoicing.models.Payment.State",
        "BillRunState": "invoicing.models.BillRun.State",
    },
}

# --- background work (read by config/celery.py) ------------------------------------------------
CELERY_BROKER_URL = BROKER_URL
CELERY_TASK_ACKS_LATE = True  # at-least-once delivery, so every task is idempotent
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_TIME_LIMIT = env.int("TASK_TIME_LIMIT_SECONDS", default=1800)
CELERY_TASK_SOFT_TIME_LIMIT = CELERY_TASK_TIME_LIMIT - 60
CELERY_TASK_DEFAULT_QUEUE = f"tokenpack-{REGION}" if REGION else "tokenpack"
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 3, "interval_start": 0.1, "interval_max": 1}
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_TIMEZONE = BILLING_TIME_ZONE  # the timetable is written in the zone that months are cut in
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BEAT_SCHEDULE = BEAT_SCHEDULE
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR_DIR / "beat-schedule")
if BROKER_URL.startswith("redis"):
    # An unfinished task comes back after this long: longer than the longest task may run. (The bill
    # run may run longer, but is acknowledged when it begins.)
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "visibility_timeout": CELERY_TASK_TIME_LIMIT * 2,
        "socket_connect_timeout": 5,
        "socket_timeout": 30,
    }

# --- security ----------------------------------------------------------------------------------
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
HTTPS_ONLY = env.bool("HTTPS_ONLY", default=PUBLIC_URL.startswith("https://"))
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS_ONLY
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = env.int("HSTS_SECONDS", default=0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = env.bool("HSTS_SUBDOMAINS", default=False)
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 14 * 24 * 3600
X_FRAME_OPTIONS = "DENY"
if env.bool("BEHIND_TLS_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
DATA_UPLOAD_MAX_MEMORY_SIZE = 32 * 2**20  # the API has its own, lower limits
METRICS_TOKEN = env("METRICS_TOKEN", default="")  # empty: whoever reaches the port may read

# --- business ----------------------------------------------------------------------------------
CLOCK_FILE = env("CLOCK_FILE", default="")  # only the demo moves the clock; see config/clock.py
USAGE_MAX_EVENTS = env.int("USAGE_MAX_EVENTS", default=10_000)
USAGE_MAX_BYTES = env.int("USAGE_MAX_BYTES", default=16 * 2**20)
QUOTA_SLICE_TOKENS = env.int("QUOTA_SLICE_TOKENS", default=50_000)  # when a node names no amount
QUOTA_VALIDITY_SECONDS = env.int("QUOTA_VALIDITY_SECONDS", default=300)
QUOTA_ANSWER_DAYS = env.int("QUOTA_ANSWER_DAYS", default=7)  # a repeat gets its answer so long
RENEWAL_LEAD_SECONDS = env.int("RENEWAL_LEAD_SECONDS", default=600)
EVENT_MAX_AGE_DAYS = env.int("EVENT_MAX_AGE_DAYS", default=62)
KEY_RETENTION_DAYS = env.int("KEY_RETENTION_DAYS", default=70)
EVENT_RETENTION_DAYS = env.int("EVENT_RETENTION_DAYS", default=400)
FUTURE_TOLERANCE_SECONDS = env.int("FUTURE_TOLERANCE_SECONDS", default=300)
CLOSE_GRACE_SECONDS = env.int("CLOSE_GRACE_SECONDS", default=3600)
# Callbacks to nodes inside the carrier's own network, and plain http to them.
CALLBACK_ALLOW_PRIVATE = env.bool("CALLBACK_ALLOW_PRIVATE", default=False)
STRIPE_API_KEY = env("STRIPE_API_KEY", default="")
STRIPE_WEBHOOK_SECRET = env("STRIPE_WEBHOOK_SECRET", default="")
STRIPE_API_BASE = env("STRIPE_API_BASE", default="")
STRIPE_PUBLISHABLE_KEY = env("STRIPE_PUBLISHABLE_KEY", default="")
SMS_SENDER = env("SMS_SENDER", default="accounts.senders.ConsoleSender")
SMS_WEBHOOK_URL = env("SMS_WEBHOOK_URL", default="")  # for accounts.senders.WebhookSender
SELLER_NAME = env("SELLER_NAME", default="Tokenpack 演示运营商")
SELLER_TAX_NUMBER = env("SELLER_TAX_NUMBER", default="")
SELLER_ADDRESS = env("SELLER_ADDRESS", default="")
INVOICE_REGION = env.int("INVOICE_REGION", default=31)  # digits 3 and 4 of an invoice number
INVOICE_CHANNEL = env.int("INVOICE_CHANNEL", default=1)  # digit 5 of an invoice number
INVOICE_DUE_DAYS = env.int("INVOICE_DUE_DAYS", default=15)
INVOICE_FONT_DIR = env("INVOICE_FONT_DIR", default="")  # with a CJK font, if none is installed
ORDER_PAYMENT_HOURS = env.int("ORDER_PAYMENT_HOURS", default=72)  # then an unpaid one is cancelled
PAYMENT_POLL_MINUTES = env.int("PAYMENT_POLL_MINUTES", default=10)  # then a webhook counts as lost
EMAIL_BACKEND = env("EMAIL_BACKEND", default="django.core.mail.backends.console.EmailBackend")

# --- logs --------------------------------------------------------------------------------------
LOG_FORMAT = env("LOG_FORMAT", default="console" if sys.stderr.isatty() or DEBUG else "json")
LOG_LEVEL = env("LOG_LEVEL", default="INFO")
LOGGING_CONFIG = "config.logs.configure"
LOGGING = logging_settings(log_format=LOG_FORMAT, level=LOG_LEVEL)
os.environ.setdefault("PGAPPNAME", "tokenpack")
