"""Routes of the API and of the probes. Rows end with a slash; collections and verbs do not."""

from __future__ import annotations

from django.urls import path

from fleet.api import conversations, docs, health, kill_orders, messages, turns

app_name = "api"
urlpatterns = [
    path("message", messages.Message.as_view(), name="message"),
    path("api/v1/messages", messages.Messages.as_view(), name="messages"),
    path("api/v1/turns/<int:turn_id>/", turns.TurnDetail.as_view(), name="turn"),
    path("api/v1/turns/<int:turn_id>/events", turns.TurnEvents.as_view(), name="turn-events"),
    path("api/v1/turns/<int:turn_id>/stop", turns.TurnStop.as_view(), name="turn-stop"),
    path("api/v1/conversations", conversations.Conversations.as_view(), name="conversations"),
    path(
        "api/v1/conversations/<int:conversation_id>/", conversations.ConversationDetail.as_view(), name="conversation"
    ),
    path(
        "api/v1/conversations/<int:conversation_id>/messages",
        conversations.ConversationMessages.as_view(),
        name="conversation-messages",
    ),
    path("api/v1/kill-orders", kill_orders.KillOrders.as_view(), name="kill-orders"),
    path("api/v1/kill-orders/<int:order_id>/", kill_orders.KillOrderDetail.as_view(), name="kill-order"),
    path("api/v1/kill-orders/<int:order_id>/lift", kill_orders.KillOrderLift.as_view(), name="kill-order-lift"),
    path("api/schema/", docs.Schema.as_view(), name="schema"),
    path("api/docs/", docs.Docs.as_view(), name="docs"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.Metrics.as_view(), name="metrics"),
]
