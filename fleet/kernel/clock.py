"""The clock that tests freeze. Leases never read it: they compare with the database's own now()."""

from __future__ import annotations

import datetime as dt

from django.db.models import DateTimeField, DurationField, ExpressionWrapper, F, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Now
from django.utils import timezone


def now() -> dt.datetime:
    """Return the current time, aware, in UTC."""
    return timezone.now()


def db_now(offset: dt.timedelta | None = None) -> Combinable:
    """Return the database's now(), moved by `offset`; the only time a lease is compared with."""
    if offset is None:
        return Now()
    return ExpressionWrapper(Now() + Value(offset, output_field=DurationField()), output_field=DateTimeField())


def db_age(field: str) -> Combinable:
    """Return how long ago the timestamp in `field` was, by the database's clock."""
    return ExpressionWrapper(Now() - F(field), output_field=DurationField())
