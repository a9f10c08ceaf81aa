"""Django's backend for PostgreSQL, in which nobody waits behind connections that a restart broke."""

from __future__ import annotations

from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg_pool import ConnectionPool


class DatabaseWrapper(base.DatabaseWrapper):
    """Tries a pooled connection before it is used, and has the pool try all of its own when that one is broken.

    Asked to do so itself (CONN_HEALTH_CHECKS), the pool hands out one after the other and pauses ever longer between
    them: after a restart, whoever came first waited behind five broken connections until the time was up.
    """

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return a connection that works."""
        connection = super().get_new_connection(conn_params)
        while self.pool and not _works(connection):
            self.pool.putconn(connection)
            self.pool.check()
            connection = super().get_new_connection(conn_params)
        return connection


def _works(connection: psycopg.Connection[Any]) -> bool:
    try:
        ConnectionPool.check_connection(connection)
    except psycopg.Error:
        return False
    return True
