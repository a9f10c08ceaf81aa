"""Registers governance with Django."""

from django.apps import AppConfig


class GovernanceConfig(AppConfig):
    """See the package's docstring."""

    name = "governance"
    verbose_name = "Governance"
