"""The WebSocket routes. The full origin is checked around them, in fleet.asgi."""

from django.urls import path

from gateways.web.consumers import ChatConsumer, ConsoleConsumer

websocket_urlpatterns = [
    path("ws/console/", ConsoleConsumer.as_asgi()),  # type: ignore[no-untyped-call]
    path("ws/chat/<int:conversation_id>/", ChatConsumer.as_asgi()),  # type: ignore[no-untyped-call]
]
