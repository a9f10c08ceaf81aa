"""Settings of processes without pages (gateways, worker, runner): no admin, no API, no web server, and so some 40 MB less each."""

from __future__ import annotations

from fleet.settings.base import *  # noqa: F403
from fleet.settings.base import INSTALLED_APPS as _ALL

_PAGES = {
    "unfold",
    "django.contrib.admin",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "csp",
    "django_htmx",
    "template_partials",
}
INSTALLED_APPS = [app for app in _ALL if app not in _PAGES]
