"""Settings of the test suite: the real servers, nothing beyond loopback, keys that exist only here."""

from __future__ import annotations

import os
import sys
import tempfile

os.environ.setdefault("FLEET_VAR", tempfile.mkdtemp(prefix="fleet-test-"))
os.environ.setdefault("FLEET_SECRET_KEY", "only-for-tests-" + "x" * 48)
os.environ.setdefault("FLEET_LOG_LEVEL", "WARNING")

from fleet.settings.base import *  # noqa: F403

FLEET_ENVIRONMENT = "test"
ANTHROPIC_API_KEY = ""
CLAUDE_CODE_OAUTH_TOKEN = ""
OPENAI_API_KEY = ""
FLEET_SANDBOX_READABLE = [sys.base_prefix, sys.prefix]  # the CLIs that misbehave are written in Python
TELEGRAM_API_ROOT = "http://127.0.0.1:1"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
