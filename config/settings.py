"""All settings of Heed, in one file. What an operator may want to change is read from the environment (see README)."""

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

from django.core.exceptions import ImproperlyConfigured

from config.env import env_bool, env_int, env_list, env_path, env_secret, env_str

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = env_path("VAR_DIR", BASE_DIR / "var")

DEBUG = env_bool("DEBUG", False)
SECRET_KEY = env_secret("SECRET_KEY", VAR_DIR / "secret_key")
ALLOWED_HOSTS = env_list("ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]")
CSRF_TRUSTED_ORIGINS = env_list("CSRF_TRUSTED_ORIGINS", "")
BEHIND_TLS = env_bool("BEHIND_TLS", False)

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "csp",
    "feedback",
    "training",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "feedback.context.shell",
            ],
        },
    },
]


def _database(url: str) -> dict[str, object]:
    parts = urlparse(url)
    if parts.scheme not in ("postgres", "postgresql"):
        raise ImproperlyConfigured("DATABASE_URL: Heed needs PostgreSQL: postgresql://user:password@host:port/name")
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    # 0 where a pooler such as PgBouncer stands in front of the server.
    pool_size = env_int("DATABASE_POOL", 8, high=200)
    pool = {"min_size": 1, "max_size": pool_size, "timeout": 20} if pool_size else False
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        # A socket folder arrives as ?host=/path, as libpq writes it.
        "HOST": query.get("host", parts.hostname or ""),
        "PORT": query.get("port", str(parts.port or "")),
        "ATOMIC_REQUESTS": False,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {"pool": pool},
    }


# `manage.py up` starts an embedded server and sets both variables for its children when they are unset.
DATABASE_URL = env_str("DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/heed")
REDIS_URL = env_str("REDIS_URL", "redis://127.0.0.1:6379/0")
DATABASES = {"default": _database(DATABASE_URL)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}

# Accounts: by invitation or by an operator's command, never by sign-up.
AUTH_USER_MODEL = "feedback.Person"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_ADAPTER = "feedback.accounts.InviteOnlyAdapter"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_RATE_LIMITS = {"login_failed": "10/10m/ip,10/10m/key"}
# No mail leaves before a server is named: people are then told inside Heed alone.
EMAIL_HOST = env_str("EMAIL_HOST", "")
EMAIL_PORT = env_int("EMAIL_PORT", 587, low=1, high=65_535)
EMAIL_HOST_USER = env_str("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = env_secret("EMAIL_HOST_PASSWORD", VAR_DIR / "email_password") if EMAIL_HOST_USER else ""
EMAIL_USE_TLS = env_bool("EMAIL_USE_TLS", True)
EMAIL_TIMEOUT = 20
EMAIL_BACKEND = env_str(
    "EMAIL_BACKEND", f"django.core.mail.backends.{'smtp' if EMAIL_HOST else 'console'}.EmailBackend"
)
DEFAULT_FROM_EMAIL = env_str("EMAIL_FROM", "heed@localhost")
# As people type it, for links in mails: https://heed.example.org. Blank: mails have no link.
PUBLIC_URL = env_str("PUBLIC_URL", "").rstrip("/")

LANGUAGE_CODE = "en"
TIME_ZONE = env_str("TIME_ZONE", "UTC")
USE_I18N = True
USE_TZ = True
LOCALE_PATHS = [BASE_DIR / "locale"]

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": env_str("STATICFILES_BACKEND", "whitenoise.storage.CompressedManifestStaticFilesStorage")
    },
}
MEDIA_ROOT = VAR_DIR / "media"
DATA_UPLOAD_MAX_MEMORY_SIZE = 12 * 1024 * 1024

# Security. Text under judgement is sensitive: no third party sees a request from these pages.
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_SSL_REDIRECT = BEHIND_TLS
SECURE_HSTS_SECONDS = 31_536_000 if BEHIND_TLS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = BEHIND_TLS
SECURE_HSTS_PRELOAD = BEHIND_TLS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_TLS else None
SESSION_COOKIE_SECURE = BEHIND_TLS
CSRF_COOKIE_SECURE = BEHIND_TLS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 12 * 3600
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "connect-src": ["'self'"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        "feedback.api.auth.ApiKeyAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": "feedback.api.pagination.NewestFirst",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "EXCEPTION_HANDLER": "feedback.api.errors.handle_error",
    "PAGE_SIZE": 50,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Heed",
    "DESCRIPTION": "Texts in, decisions and corrections out. Heed is not a crisis service.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
}

# Heed's own settings.
INFERENCE_URL = env_str("INFERENCE_URL", "http://127.0.0.1:8002")
INFERENCE_TOKEN = env_secret("INFERENCE_TOKEN", VAR_DIR / "inference_token")
INFERENCE_TIMEOUT_S = env_int("INFERENCE_TIMEOUT_S", 30, low=1, high=600)
ASSIGNMENT_LEASE_S = env_int("ASSIGNMENT_LEASE_S", 600, low=10, high=86_400)
CASE_LEASE_S = env_int("CASE_LEASE_S", 900, low=10, high=86_400)
RUNS_DIR = VAR_DIR / "runs"
SNAPSHOTS_DIR = VAR_DIR / "snapshots"
RELEASES_DIR = VAR_DIR / "releases"
STARTER_BUNDLE = env_path("STARTER_BUNDLE", BASE_DIR / "releases" / "starter-2")
BASE_MODELS_DIR = env_path("HEED_BASE_MODELS", VAR_DIR / "base_models")
# A functional suite (JSONL) that rule drafts are tried out on where nobody uploads another.
SUITE_FILE = env_path("HEED_SUITE_FILE", Path()) if env_str("HEED_SUITE_FILE", "") else None
RUN_LEASE_S = env_int("RUN_LEASE_S", 60, low=5, high=3600)
RUN_CANCEL_GRACE_S = env_int("RUN_CANCEL_GRACE_S", 30, low=1, high=3600)

# Celery. Exclusivity never rests on the broker: see training/supervisor.py.
CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "training.tasks.run_training_task": {"queue": "training"},
    "training.tasks.report_machine_task": {"queue": "training"},
}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# "spawn" for the training worker: a forked child could not use a GPU that its parent has touched.
CELERY_WORKER_POOL_START_METHOD = env_str("WORKER_POOL_START_METHOD", "fork")
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": env_int("VISIBILITY_TIMEOUT_S", 3600, low=10)}
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 20.0
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR_DIR / "beat-schedule")
CELERY_BEAT_SCHEDULE = {
    "score-waiting": {"task": "feedback.tasks.score_waiting_task", "schedule": 10.0},
    "converge-inference": {"task": "training.tasks.converge_inference_task", "schedule": 10.0},
    "requeue-lost-runs": {"task": "training.tasks.requeue_lost_runs_task", "schedule": 20.0},
    # Behind a long run these would pile up: each is dropped when the next one is due.
    "report-machine": {"task": "training.tasks.report_machine_task", "schedule": 60.0, "options": {"expires": 60}},
    "tick-cases": {"task": "feedback.tasks.tick_cases_task", "schedule": 30.0},
    "tell-ended-runs": {"task": "feedback.tasks.tell_ended_runs_task", "schedule": 10.0},
    "settle-rule-drafts": {"task": "feedback.tasks.settle_rule_drafts_task", "schedule": 10.0},
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env_str("LOG_LEVEL", "INFO")},
    "loggers": {"httpx": {"level": "WARNING"}},
}
