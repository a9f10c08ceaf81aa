"""The house itself: wires ports to adapters once everything is loaded."""

from django.apps import AppConfig


class FleetConfig(AppConfig):
    """Knows every app."""

    name = "fleet"
    verbose_name = "Fleet"

    def ready(self) -> None:
        """Connect what each app needs from outside with what provides it."""
        from fleet import celery, wiring

        celery.app.set_default()  # jobs and hints go by it
        wiring.connect()
