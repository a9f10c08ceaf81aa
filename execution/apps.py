"""Registers execution with Django."""

from django.apps import AppConfig


class ExecutionConfig(AppConfig):
    """See the package's docstring."""

    name = "execution"
    verbose_name = "Execution"
