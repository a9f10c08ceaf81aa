"""Registers conversations with Django."""

from django.apps import AppConfig


class ConversationsConfig(AppConfig):
    """See the package's docstring."""

    name = "conversations"
    verbose_name = "Conversations"
