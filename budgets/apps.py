"""Registers budgets with Django."""

from django.apps import AppConfig


class BudgetsConfig(AppConfig):
    """See the package's docstring."""

    name = "budgets"
    verbose_name = "Budgets"

    def ready(self) -> None:
        """Subscribe to what happens below."""
        from budgets import receivers  # noqa: F401
