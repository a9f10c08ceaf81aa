"""Django admin for conversations. All of it changes only by its actions, so all of it is for looking."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin

from conversations.models import Conversation, Delivery, InboundMessage, Message, Session, Turn
from identities.admin import MatrixAdmin
from identities.keyset import among


@admin.register(Conversation)
class ConversationAdmin(MatrixAdmin):
    """Where people and bots talk."""

    read_only = True
    list_display = ["id", "title", "account", "identity", "person", "kind", "last_message_at"]
    list_filter = ["kind"]
    list_select_related = ["identity", "person"]
    search_fields = ["title", "account", "chat_id"]


@admin.register(Turn)
class TurnAdmin(MatrixAdmin):
    """Questions and how they ended."""

    read_only = True
    list_display = ["id", "identity", "person", "state", "created_at", "ended_at", "sentence"]
    list_filter = ["state"]
    list_select_related = ["identity", "person"]


@admin.register(InboundMessage)
class InboundMessageAdmin(MatrixAdmin):
    """What was received."""

    read_only = True
    list_display = ["id", "account", "event_id", "sender_id", "state", "received_at"]
    list_filter = ["state"]
    search_fields = ["account", "event_id", "sender_id"]


@admin.register(Message)
class MessageAdmin(MatrixAdmin):
    """What was said."""

    read_only = True
    list_display = ["id", "conversation", "author", "name", "created_at"]
    list_filter = ["author"]
    list_select_related = ["conversation"]


@admin.register(Delivery)
class DeliveryAdmin(MatrixAdmin):
    """The outbox."""

    read_only = True
    list_display = ["id", "account", "chat_id", "kind", "state", "attempts", "doubtful", "created_at", "ended_at"]
    list_filter = ["state", "kind"]


@admin.register(Session)
class SessionAdmin(MatrixAdmin):
    """Provider sessions and why they were replaced."""

    read_only = True
    list_display = ["id", "conversation", "provider", "state", "turns", "failures", "rotation_reason", "last_used_at"]
    list_filter = ["state", among("provider", sorted(settings.FLEET_PROVIDERS))]
    list_select_related = ["conversation"]
