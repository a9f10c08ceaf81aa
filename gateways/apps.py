"""Registers gateways with Django."""

from django.apps import AppConfig


class GatewaysConfig(AppConfig):
    """See the package's docstring."""

    name = "gateways"
    verbose_name = "Gateways"

    def ready(self) -> None:
        """Tell conversations which platforms a process sends to; everywhere else storing an answer is delivering it."""
        from conversations.ports import register_sender
        from gateways.queries import is_served
        from gateways.registry import ADAPTERS

        for platform in ADAPTERS:
            register_sender(platform, serves=is_served)
