"""A small Telegram for tests and benchmarks: the Bot API on loopback, with people who talk to bots.

    with TelegramEmulator() as telegram:
        bot = telegram.add_bot("1001:test", "ada_bot")
        eva = telegram.person(501, "Eva")
        ...  # TELEGRAM_API_ROOT=telegram.url
        said = eva.send(bot, "Hello")
        reply = eva.wait_for_reply(said)
        print(reply.called.monotonic - said.times().fetched[0].monotonic)

`TelegramEmulator` runs in a thread; `TelegramProcess` has the same surface and runs in a process of its own, so that
its processor time is not counted with the caller's. All times are `Moment`s.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from tests.emulators.background import BackgroundServer
from tests.emulators.loopback import post
from tests.emulators.telegram_api import TelegramApi
from tests.emulators.telegram_control import Control
from tests.emulators.telegram_people import (
    PATIENCE,
    ApiCall,
    BotHandle,
    Group,
    Person,
    PlannedFault,
    SentMessage,
    api_call,
    sent_message,
)
from tests.emulators.telegram_world import World


class Telegram:
    """What both forms of the emulator can do. `url` is for TELEGRAM_API_ROOT."""

    url: str

    def __init__(self) -> None:
        self.bots: dict[str, BotHandle] = {}

    def start(self) -> Self:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def do(self, command: str, **arguments: Any) -> Any:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add_bot(self, token: str, username: str) -> BotHandle:
        """`token` is `<number>:<anything>`, as BotFather gives them."""
        self.do("add_bot", token=token, username=username)
        bot = self.bots[token] = BotHandle(token, username)
        return bot

    def person(self, id: int, first_name: str) -> Person:
        self.do("add_chat", chat_id=id, type="private", first_name=first_name)
        return Person(self, id, first_name)

    def group(self, id: int, title: str, *, forum: bool = False, kind: str = "supergroup") -> Group:
        self.do("add_chat", chat_id=id, type=kind, title=title, **({"is_forum": True} if forum else {}))
        return Group(self, id, title)

    def fault(self, method: str, **plan: Any) -> PlannedFault:
        """Plan a `Fault` (see telegram_world) for the next calls of `method`."""
        return PlannedFault(self, self.do("fault", method=method, **plan))

    def sent(self, chat_id: int | None = None) -> list[SentMessage]:
        """Messages by bots, oldest first, without deleted ones."""
        return [sent_message(message) for message in self.do("sent", chat_id=chat_id)]

    def calls(self, method: str | None = None) -> list[ApiCall]:
        return [api_call(call) for call in self.do("calls", method=method)]

    def wait_for_calls(self, method: str, count: int = 1, timeout: float = PATIENCE) -> list[ApiCall]:
        return [api_call(call) for call in self.do("wait_for_calls", method=method, count=count, timeout=timeout)]


class TelegramEmulator(Telegram):
    """In a thread of the test."""

    def start(self) -> Self:
        self._server = BackgroundServer(self._application)
        self._server.start()
        self.url = self._server.url
        return self

    def stop(self) -> None:
        self._server.stop()

    def do(self, command: str, **arguments: Any) -> Any:
        patience = arguments.get("timeout", PATIENCE) + 10
        return self._server.call(self._control.run(command, arguments), patience)

    async def _application(self) -> web.Application:
        world = World()
        self._control = Control(world)
        application = web.Application(client_max_size=64 * 1024**2)
        self._control.add_routes(application)
        TelegramApi(world).add_routes(application)
        return application


class TelegramProcess(Telegram):
    """In a process of its own; `pid` is there for whoever measures."""

    def start(self) -> Self:
        root = Path(__file__).parents[2]
        command = [sys.executable, "-m", "tests.emulators.telegram"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
        self.url = self._process.stdout.readline().strip()
        self.pid = self._process.pid
        return self

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def do(self, command: str, **arguments: Any) -> Any:
        patience = arguments.get("timeout", PATIENCE) + 10
        found = post(f"{self.url}/control/{command}", arguments, patience)
        if "timeout" in found:
            raise TimeoutError(found["timeout"])
        return found["result"]


if __name__ == "__main__":
    with TelegramEmulator() as emulator:
        sys.stdout.write(f"{emulator.url}\n")
        sys.stdout.flush()
        sys.stdin.read()
