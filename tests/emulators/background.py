"""An aiohttp application on a free loopback port, in a thread of its own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from aiohttp import web

T = TypeVar("T")


class BackgroundServer:
    """Serves `application` until `stop()`. `url` has no trailing slash."""

    def __init__(self, application: Callable[[], Awaitable[web.Application]], port: int = 0) -> None:
        self._application = application
        self._port = port
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="emulator", daemon=True)
        self.loop = asyncio.new_event_loop()
        self.url = ""

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(30):
            raise TimeoutError("The emulator did not come up in 30 s.")
        if self._error:
            raise self._error

    def stop(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(30)

    def call(self, work: Coroutine[Any, Any, T], timeout: float = 30) -> T:
        """Run `work` on the server's loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._serve())
        except BaseException as error:
            self._error = error
            self._ready.set()
        finally:
            self.loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        # Handlers are cancelled when the client goes away, so that a held request does not outlive its caller.
        runner = web.AppRunner(
            await self._application(), handler_cancellation=True, access_log=None, shutdown_timeout=1
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._stopping.wait()
        await runner.cleanup()
