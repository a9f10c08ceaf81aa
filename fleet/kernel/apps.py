"""Registers the kernel with Django."""

from django.apps import AppConfig


class KernelConfig(AppConfig):
    """The kernel knows no other app."""

    name = "fleet.kernel"
    label = "kernel"
    verbose_name = "Journal"
