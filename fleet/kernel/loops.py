"""One background asyncio loop per process, for synchronous code that has to talk to asynchronous libraries."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")
_lock = threading.Lock()
_loops: dict[str, asyncio.AbstractEventLoop] = {}


def submit(coroutine: Coroutine[Any, Any, Result], *, loop: str = "background") -> Future[Result]:
    """Run `coroutine` on the named background loop and return its future at once."""
    return asyncio.run_coroutine_threadsafe(coroutine, background(loop))


def background(name: str = "background") -> asyncio.AbstractEventLoop:
    """Return the loop of that name, started on first use in a daemon thread."""
    with _lock:
        if name not in _loops:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name=f"loop:{name}", daemon=True).start()
            _loops[name] = loop
        return _loops[name]
