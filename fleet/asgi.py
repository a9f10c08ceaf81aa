"""ASGI entry: HTTP by Django, WebSockets by Channels, with the full origin (scheme, host and port) checked."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.settings.base")

from django.core.asgi import get_asgi_application

http = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402 - needs the loaded apps
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import OriginValidator  # noqa: E402
from django.conf import settings  # noqa: E402

from fleet.celery import app as celery_app  # noqa: E402
from gateways.routing import websocket_urlpatterns  # noqa: E402

# Without this the web process would not know the jobs it enqueues by name.
celery_app.loader.import_default_modules()

application = ProtocolTypeRouter(
    {
        "http": http,
        # Channels' own AllowedHostsOriginValidator ignores scheme and port: a bot's page on port 3000 would pass.
        "websocket": OriginValidator(
            AuthMiddlewareStack(URLRouter(websocket_urlpatterns)), settings.FLEET_ALLOWED_ORIGINS
        ),
    }
)
