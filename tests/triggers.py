"""What only a test may do: write where the database lets nobody write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pgtrigger
from django.db import connection


@contextmanager
def switched_off() -> Iterator[None]:
    """Let no trigger of ours fire on this connection.

    As pgtrigger.ignore does, but said once: that one writes it before every statement, and two statements cannot be prepared as one.
    """
    _ignore([trigger.get_pgid(model) for model, trigger in pgtrigger.registered()])
    try:
        yield
    finally:
        _ignore([])


def _ignore(names: list[str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('pgtrigger.ignore', %s, false)", ["{" + ",".join(names) + "}"])
