"""Fleet: wiring of the apps, the kernel they share, and the console's shell."""

from fleet.celery import app as celery_app

__all__ = ["celery_app"]
