"""A browser's end of a socket, for tests that read like a conversation: the real ASGI application, origin check included."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.test import Client

from fleet.asgi import application

PATIENCE = 90.0
T = TypeVar("T")


class Browser:
    """Opens sockets with a client's cookies. Its event loop runs in a thread, as daphne's does beside the test."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sockets", daemon=True)
        self._thread.start()
        self._open: list[Socket] = []

    def open(self, address: str, *, origin: str | None = None) -> Socket:
        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in self._client.cookies.items())
        headers = [
            (b"origin", (origin or settings.FLEET_ALLOWED_ORIGINS[0]).encode()),
            (b"cookie", cookies.encode()),
        ]
        socket = Socket(self, WebsocketCommunicator(application, address, headers=headers))
        self._open.append(socket)
        return socket

    def forget(self, socket: Socket) -> None:
        self._open.remove(socket)

    def working(self) -> set[str]:
        """What still runs for sockets, by the names of the coroutines."""

        async def names() -> set[str]:
            return {task.get_coro().__qualname__ for task in asyncio.all_tasks()}

        return self.wait(names()) - {"RedisSingleShardConnection._do_receiving", "Browser.working.<locals>.names"}

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE + 5)

    def close(self) -> None:
        """Leave every socket; what they read in threads has ended too, or it would be in the next test's tables."""
        while self._open:
            self._open[-1].leave()
        self.wait(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Socket:
    """`accepted` is False when the handshake was refused."""

    def __init__(self, browser: Browser, communicator: WebsocketCommunicator) -> None:
        self._browser, self._communicator = browser, communicator
        self.accepted = browser.wait(communicator.connect(PATIENCE))[0]

    def next(self, **wanted: Any) -> dict[str, Any]:
        """The next frame that has these values; frames before it are passed over."""
        while True:
            frame = self._browser.wait(self._communicator.receive_json_from(PATIENCE))
            if wanted.items() <= frame.items():
                return frame

    def until(self, **wanted: Any) -> list[dict[str, Any]]:
        """All frames up to and with the first that has these values."""
        frames = [self.next()]
        while not wanted.items() <= frames[-1].items():
            frames.append(self.next())
        return frames

    def close_code(self) -> int:
        """Wait until the server closes; the code it gives."""
        while True:
            message = self._browser.wait(self._communicator.receive_output(PATIENCE))
            if message["type"] == "websocket.close":
                return message["code"]

    def send(self, frame: Any) -> None:
        self._browser.wait(self._communicator.send_json_to(frame))

    def send_text(self, text: str) -> None:
        self._browser.wait(self._communicator.send_to(text_data=text))

    def leave(self) -> None:
        """Close this end. Raises what the server's end broke at, if it did."""
        self._browser.forget(self)
        self._browser.wait(self._communicator.disconnect(timeout=PATIENCE))
