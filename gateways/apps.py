"""Registers gateways with Django."""

from django.apps import AppConfig


class GatewaysConfig(AppConfig):
    """See the package's docstring."""

    name = "gateways"
    verbose_name = "Gateways"
