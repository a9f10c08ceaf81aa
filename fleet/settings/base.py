"""Every setting, and the only place that reads the environment (`.env` in the project's root is honoured)."""

from __future__ import annotations

import os
import secrets
import tomllib
from pathlib import Path
from typing import Any

import environ
import structlog
from django.core.exceptions import ImproperlyConfigured

from execution.providers.acp import agents
from fleet.kernel import outgoing
from fleet.kernel.database import ask_again
from fleet.kernel.masking import mask_event, register
from fleet.platform import bounds

ROOT = Path(__file__).resolve().parent.parent.parent
env = environ.Env()
if (ROOT / ".env").is_file():
    env.read_env(ROOT / ".env")

VAR = Path(env.str("FLEET_VAR", default=str(ROOT / "var"))).resolve()
# Where `make run` says on which sockets its embedded servers listen; a named DATABASE_URL or REDIS_URL wins.
if (VAR / "servers.env").is_file():
    env.read_env(VAR / "servers.env")
if _complaint := bounds.complaint(os.environ):
    raise ImproperlyConfigured(_complaint)


def _own_secret(name: str) -> str:
    """Return the secret kept in `var/keys/<name>`, made on first use, readable by its owner only."""
    path = VAR / "keys" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:  # noqa: PTH123 - mode at creation
            file.write(secrets.token_urlsafe(48))
    return path.read_text()


# --- The installation -----------------------------------------------------------------------------------------------
DEBUG = env.bool("FLEET_DEBUG", default=False)
FLEET_VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
FLEET_ENVIRONMENT = env.str("FLEET_ENVIRONMENT", default="local")
FLEET_VAR = VAR
FLEET_PORT = env.int("FLEET_PORT", default=9600)
FLEET_PUBLIC_URL = env.str("FLEET_PUBLIC_URL", default=f"http://127.0.0.1:{FLEET_PORT}").rstrip("/")
FLEET_KEYSET = env.str("FLEET_KEYSET", default="")
FLEET_KEYSET_FILE = env.str("FLEET_KEYSET_FILE", default=str(VAR / "keys" / "keyset.json"))
SECRET_KEY = env.str("FLEET_SECRET_KEY", default="") or _own_secret("django")
_https = FLEET_PUBLIC_URL.startswith("https://")
_public_host = FLEET_PUBLIC_URL.split("://", 1)[-1].split("/", 1)[0].rsplit(":", 1)[0]
ALLOWED_HOSTS = env.list("FLEET_ALLOWED_HOSTS", default=sorted({_public_host, "127.0.0.1", "localhost"}))
# Scheme, host and port: a bot's own web server on another port of this host is a stranger (ADR 0004).
FLEET_ALLOWED_ORIGINS = env.list(
    "FLEET_ALLOWED_ORIGINS",
    default=sorted({FLEET_PUBLIC_URL, f"http://127.0.0.1:{FLEET_PORT}", f"http://localhost:{FLEET_PORT}"}),
)

# --- Execution --------------------------------------------------------------------------------------------------------
ANTHROPIC_API_KEY = env.str("ANTHROPIC_API_KEY", default="")
ANTHROPIC_BASE_URL = env.str("ANTHROPIC_BASE_URL", default="")
# A subscription instead of a key: the long-lived token that `claude setup-token` prints. A login is never looked for.
CLAUDE_CODE_OAUTH_TOKEN = env.str("CLAUDE_CODE_OAUTH_TOKEN", default="")
FLEET_CLAUDE_LOGIN_DIR = env.str("FLEET_CLAUDE_LOGIN_DIR", default="")  # not used any more, and told so (ADR 28)
FLEET_CLAUDE_CLI = env.str("FLEET_CLAUDE_CLI", default="")  # another CLI than the one in the SDK's wheel
OPENAI_API_KEY = env.str("OPENAI_API_KEY", default="")
OPENAI_BASE_URL = env.str("OPENAI_BASE_URL", default="").rstrip("/")  # with its /v1; empty: OpenAI's own
# What Codex answers with when a bot's own model is none of OpenAI's. It needs a price (genai-prices).
FLEET_CODEX_MODEL = env.str("FLEET_CODEX_MODEL", default="gpt-5.6-luna")
FLEET_CODEX_CLI = env.str("FLEET_CODEX_CLI", default="")  # another CLI than the one in the SDK's wheel
# Agents that speak the Agent Client Protocol, declared in a JSON file (execution/providers/acp/README.md).
try:
    FLEET_ACP_AGENTS = agents.read(env.str("FLEET_ACP_AGENTS", default=""))
except agents.BadDeclaration as error:
    raise ImproperlyConfigured(str(error)) from error
FLEET_ACP_SECRETS = {name: os.environ.get(name, "") for agent in FLEET_ACP_AGENTS.values() for name in agent.keys}
# The company's own proxy, by the usual variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY (execution/sandbox/README.md).
try:
    FLEET_OUTGOING = outgoing.Outgoing.read(os.environ)
except outgoing.BadProxy as error:
    raise ImproperlyConfigured(str(error)) from error
# All that a CLI sees of our environment, besides what its provider sets. A proxy's password is not among it.
FLEET_CLI_ENVIRONMENT = {
    name: os.environ[name]
    for name in (
        *("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"),
        "CLAUDE_CODE_CERT_STORE",
    )
    if name in os.environ and not outgoing.has_password(os.environ[name] if name.lower().endswith("_proxy") else "")
}
# `require`: a CLI runs in a bubblewrap sandbox or not at all. `off`: none does, which every worker journals when it starts.
FLEET_SANDBOX = env.str("FLEET_SANDBOX", default="require")
# What a CLI sees read-only besides the system, such as a toolchain in /opt.
FLEET_SANDBOX_READABLE = env.list("FLEET_SANDBOX_READABLE", default=[])
FLEET_WORKER_SLOTS = env.int("FLEET_WORKER_SLOTS", default=16)
# What running turns get to finish when their worker is stopped.
FLEET_WORKER_GRACE_SECONDS = env.float("FLEET_WORKER_GRACE_SECONDS", default=10.0)
# CLIs that stay for the next turn of their session: how many in a worker (each takes some 280 MB), for how long, how big at most.
FLEET_WARM_PROCESSES = env.int("FLEET_WARM_PROCESSES", default=4)
FLEET_WARM_SECONDS = env.float("FLEET_WARM_SECONDS", default=600.0)
FLEET_WARM_MEGABYTES = env.int("FLEET_WARM_MEGABYTES", default=600)
# CLIs started ahead for the first turn of a conversation, for bots that ask for it: how many in a worker, all bots together.
FLEET_PREWARMED_PROCESSES = env.int("FLEET_PREWARMED_PROCESSES", default=2)
FLEET_DETACHED_SECONDS = env.float("FLEET_DETACHED_SECONDS", default=90.0)  # what runs waits so long for another worker
FLEET_STOPPING_FILE = VAR / "stopping"  # there while all of Fleet stops: nobody will go on with anything
FLEET_STALL_SECONDS = env.float("FLEET_STALL_SECONDS", default=120.0)  # a provider silent for so long is stopped
# A CLI that waits longer than this before it asks its API again, with nothing shown yet, is given up: the next of the chain takes the turn.
FLEET_RETRY_SECONDS = env.float("FLEET_RETRY_SECONDS", default=30.0)
FLEET_REPEATED_CALLS = env.int(
    "FLEET_REPEATED_CALLS", default=5
)  # the same tool call so often in a row is a loop; 0: never
FLEET_CGROUP = env.str("FLEET_CGROUP", default="")  # a cgroup v2 delegated to Fleet, with the memory controller
FLEET_LONGEST_WAIT_HOURS = env.float("FLEET_LONGEST_WAIT_HOURS", default=24.0)  # for a login that may be used again
# Keep a copy of Claude's transcripts in PostgreSQL, so that a session goes on wherever its next turn is taken.
FLEET_TRANSCRIPT_STORE = "execution.engine.mirror.Mirror" if env.bool("FLEET_TRANSCRIPT_MIRROR", default=False) else ""
FLEET_TRANSCRIPT_DAYS = env.int("FLEET_TRANSCRIPT_DAYS", default=30)  # the copy of a silent session is kept for so long
FLEET_WORKSPACES = Path(env.str("FLEET_WORKSPACES", default=str(VAR / "workspaces")))
FLEET_HOMES = Path(env.str("FLEET_HOMES", default=str(VAR / "homes")))  # each bot's HOME and CLI configuration
FLEET_RUNTIME_DIR = Path(env.str("FLEET_RUNTIME_DIR", default=str(VAR / "run")))
FLEET_PROVIDERS = {
    "claude": "execution.providers.claude.provider.ClaudeProvider",
    "codex": "execution.providers.codex.provider.CodexProvider",
    "mock": "execution.providers.mock.provider.MockProvider",
    **{name: f"execution.providers.acp.provider.AcpProvider:{name}" for name in FLEET_ACP_AGENTS},
}

# --- Gateways ---------------------------------------------------------------------------------------------------------
TELEGRAM_API_ROOT = env.str("TELEGRAM_API_ROOT", default="https://api.telegram.org").rstrip("/")
# FLEET_TELEGRAM_<IDENTITY>_TOKEN, for example FLEET_TELEGRAM_ADA_TOKEN: taken over into the encrypted store at start.
FLEET_TELEGRAM_TOKENS = {
    name[len("FLEET_TELEGRAM_") : -len("_TOKEN")].lower().replace("_", "-"): value
    for name, value in os.environ.items()
    if name.startswith("FLEET_TELEGRAM_") and name.endswith("_TOKEN") and value
}
for _secret in (
    *(ANTHROPIC_API_KEY, CLAUDE_CODE_OAUTH_TOKEN, OPENAI_API_KEY),
    *(*FLEET_ACP_SECRETS.values(), *FLEET_TELEGRAM_TOKENS.values(), *FLEET_OUTGOING.secrets()),
):
    register(_secret)

# --- Django -----------------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "fleet.kernel",
    "identities",
    "governance",
    "budgets",
    "execution",
    "conversations",
    "gateways",
    "fleet",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "csp",
    "django_htmx",
    "template_partials",
    "pgtrigger",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "fleet.permissions.MatrixMiddleware",
    "fleet.errors.FleetErrorMiddleware",
]
ROOT_URLCONF = "fleet.urls"
ASGI_APPLICATION = "fleet.asgi.application"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
                "fleet.console.context_processors.shell",
            ],
        },
    }
]
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SILENCED_SYSTEM_CHECKS: list[str] = []

# --- Storage ----------------------------------------------------------------------------------------------------------
DATABASES: dict[str, Any] = {"default": env.db_url("DATABASE_URL", default="postgresql://fleet@127.0.0.1:5432/fleet")}
DATABASES["default"]["ENGINE"] = "fleet.kernel.postgresql"
DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {
    "min_size": 1,
    # A worker needs one connection for each slot, and its clocks need theirs.
    "max_size": env.int("FLEET_DATABASE_POOL", default=max(24, FLEET_WORKER_SLOTS + 8)),
    "timeout": 10,
    # The pool waits twice as long after every failed attempt. Given up early and begun anew, an attempt is made every second.
    "reconnect_timeout": 1,
    "reconnect_failed": ask_again,
    "num_workers": 1,
}
DATABASES["default"]["OPTIONS"]["connect_timeout"] = 5
# Prepared statements: a message takes a fifth less time. A PgBouncer before 1.21 that pools transactions cannot have them.
if env.bool("FLEET_DATABASE_PREPARE", default=True):
    DATABASES["default"]["OPTIONS"] |= {"server_side_binding": True, "prepare_threshold": 3}
DATABASES["default"]["CONN_HEALTH_CHECKS"] = False  # our engine sees to that
REDIS_URL = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_connect_timeout": 1}], "prefix": "fleet"},
    }
}

# --- Celery: a message is a hint, so nothing is retried, kept or waited for (task-engines reference, 2.4) ----------------
CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_DEFAULT_QUEUE = "fleet"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_PUBLISH_RETRY = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_DISABLE_PREFETCH = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_timeout": 1.0,
    "socket_connect_timeout": 1.0,
    "max_retries": 0,
    "interval_start": 0,
    "interval_step": 0,
    "interval_max": 0,
}

# --- Sign-in ----------------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "identities.Person"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_ADAPTER = "fleet.accounts.ClosedSignup"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_RATE_LIMITS = {"login_failed": "10/m/ip,5/5m/key"}
ACCOUNT_LOGOUT_ON_GET = False

# --- Security ---------------------------------------------------------------------------------------------------------
CSRF_TRUSTED_ORIGINS = FLEET_ALLOWED_ORIGINS
CSRF_FAILURE_VIEW = "fleet.errors.csrf_failure"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
# Cookies ignore ports: on one host two installations would sign each other out without names of their own.
SESSION_COOKIE_NAME = "__Host-fleet" if _https else f"fleet_{FLEET_PORT}"
CSRF_COOKIE_NAME = "__Host-fleet-csrf" if _https else f"fleet_csrf_{FLEET_PORT}"
SECURE_SSL_REDIRECT = env.bool("FLEET_SSL_REDIRECT", default=_https)
SECURE_HSTS_SECONDS = env.int("FLEET_HSTS_SECONDS", default=31_536_000 if _https else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = _https
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if env.bool("FLEET_BEHIND_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

_NONCE = "csp.constants.NONCE"
CONTENT_SECURITY_POLICY = {
    "EXCLUDE_URL_PREFIXES": ("/admin/",),  # unfold brings Alpine, which needs eval; admin sets its own looser header
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "manifest-src": ["'self'"],
    },
}

# --- Static files -----------------------------------------------------------------------------------------------------
STATIC_URL = "/static/"
# WhiteNoise serves every file from where it is: nothing is ever collected, so there is no STATIC_ROOT.
STATICFILES_DIRS = [ROOT / "static"]
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

# --- API --------------------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "fleet.api.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["fleet.api.permissions.MatrixPermission"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "EXCEPTION_HANDLER": "fleet.api.errors.answer",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Fleet",
    "DESCRIPTION": "Talk to bots, follow their turns, stop them.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

# --- Logs -------------------------------------------------------------------------------------------------------------
_shared: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    mask_event,
]
structlog.configure(
    processors=[*_shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": structlog.stdlib.ProcessorFormatter,
            "foreign_pre_chain": _shared,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                mask_event,
                structlog.processors.JSONRenderer()
                if env.str("FLEET_LOG_FORMAT", default="text") == "json"
                else structlog.dev.ConsoleRenderer(colors=False),
            ],
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env.str("FLEET_LOG_LEVEL", default="INFO")},
    "loggers": {
        "environ": {"level": "WARNING"},
        "channels_redis": {"level": "CRITICAL"},  # a traceback per retry while Redis is away; readers poll PostgreSQL
        "httpx": {"level": "WARNING"},
        "telegram": {"level": "WARNING"},
        "asyncio": {"level": "WARNING"},
        "celery": {"level": "WARNING"},
        "daphne": {"level": "WARNING"},
        "django.channels.server": {"level": "WARNING"},
        "claude_agent_sdk": {"level": "WARNING"},
    },
}
