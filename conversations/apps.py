"""Registers conversations with Django, its receivers and its chat commands."""

from django.apps import AppConfig


class ConversationsConfig(AppConfig):
    """See the package's docstring."""

    name = "conversations"
    verbose_name = "Conversations"

    def ready(self) -> None:
        """Subscribe to what happens below, and register the chat commands."""
        from conversations import commands, receivers  # noqa: F401
