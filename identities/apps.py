"""Registers identities with Django."""

from django.apps import AppConfig


class IdentitiesConfig(AppConfig):
    """See the package's docstring."""

    name = "identities"
    verbose_name = "Identities"
