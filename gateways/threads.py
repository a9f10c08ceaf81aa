"""A few threads for synchronous database work, each with a connection that stays open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from fleet.kernel.database import survive

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_SECONDS = 5.0


class DatabaseThreads:
    """Runs actions and queries for asyncio code.

    Opening a connection or checking it costs round trips, so each thread keeps its own; when PostgreSQL was restarted, the first call
    on each thread finds that out and is made again. Therefore only work that may be repeated belongs here.
    """

    def __init__(self, threads: int = 4) -> None:
        self._connections: list[BaseDatabaseWrapper] = []
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="database", initializer=self._enter)

    async def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in one of the threads. For a few seconds it outlives a database that is away; then the error is raised."""
        bound = partial(work, *args, **kwargs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(survive, bound, seconds=PATIENCE_SECONDS))

    async def close(self) -> None:
        """Wait for the work under way and close every connection."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._pool.shutdown(wait=True)
        for kept in self._connections:
            kept.close()

    def _enter(self) -> None:
        """Remember the thread's connection; it is closed from another thread, after this one has ended."""
        kept = connections[DEFAULT_DB_ALIAS]
        kept.inc_thread_sharing()
        self._connections.append(kept)


async def in_thread(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run one read in any thread and give its connection back, for a process whose threads have other things to do as well."""

    def reading() -> T:
        try:
            return read(*args, **kwargs)
        finally:
            connection.close()

    return await sync_to_async(reading, thread_sensitive=False)()
