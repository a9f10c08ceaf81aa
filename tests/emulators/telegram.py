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

import base64
import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from tests.emulators.background import BackgroundServer
from tests.emulators.telegram_api import TelegramApi
from tests.emulators.telegram_control import Control
from tests.emulators.telegram_world import Moment, World

__all__ = ["Moment", "Telegram", "TelegramEmulator", "TelegramProcess"]

PATIENCE = 60.0


@dataclass(frozen=True)
class BotHandle:
    token: str
    username: str

    @property
    def id(self) -> int:
        return int(self.token.split(":")[0])


@dataclass(frozen=True)
class SentMessage:
    """A message by a bot. `called` is when its sendMessage came in, `stored` when people could see it.

    `versions` are its texts with their moments (edits append), `payload` is the message as the Bot API words it.
    """

    chat_id: int
    message_id: int
    text: str
    token: str
    versions: Sequence[tuple[str, Moment]]
    called: Moment
    stored: Moment
    payload: dict[str, Any]


@dataclass(frozen=True)
class UpdateTimes:
    """`fetched` has one moment for every getUpdates that brought it, `confirmed` is None while it is not confirmed."""

    update_id: int
    payload: dict[str, Any]
    enqueued: Moment
    fetched: Sequence[Moment]
    confirmed: Moment | None


@dataclass(frozen=True)
class ApiCall:
    """`status` is 0 while the call runs and when its connection was dropped."""

    token: str
    method: str
    parameters: dict[str, Any]
    called: Moment
    answered: Moment | None
    status: int


@dataclass(frozen=True)
class Said:
    """What a person did, and the update that tells the bot."""

    telegram: "Telegram"
    token: str
    update_id: int
    message_id: int
    chat_id: int

    def times(self) -> UpdateTimes:
        return _times(self.telegram.do("update", token=self.token, update_id=self.update_id))

    def wait_confirmed(self, timeout: float = PATIENCE) -> UpdateTimes:
        """Wait until the bot asked for a higher offset."""
        who = {"token": self.token, "update_id": self.update_id}
        return _times(self.telegram.do("wait_confirmed", timeout=timeout, **who))

    def deliver_again(self) -> None:
        """The next getUpdates brings this update once more, whatever its offset."""
        self.telegram.do("redeliver", token=self.token, update_id=self.update_id)


@dataclass(frozen=True)
class Group:
    """A supergroup, or with `forum` one that has topics."""

    telegram: "Telegram"
    id: int
    title: str

    def add_topic(self, thread: int) -> None:
        self.telegram.do("add_topic", chat_id=self.id, thread=thread)

    def migrate(self, new_id: int) -> "Group":
        """Become a supergroup with another id: the old id refuses and names the new one."""
        self.telegram.do("migrate", chat_id=self.id, new_id=new_id)
        return Group(self.telegram, new_id, self.title)


@dataclass(frozen=True)
class Person:
    telegram: "Telegram"
    id: int
    first_name: str

    @property
    def user(self) -> dict[str, Any]:
        return {"id": self.id, "is_bot": False, "first_name": self.first_name, "language_code": "en"}

    def send(
        self,
        bot: BotHandle,
        text: str | None,
        *,
        group: Group | None = None,
        thread: int | None = None,
        reply_to: int | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Said:
        """Say something in the private chat or a group; `extra` adds fields to the message (a sticker, a location)."""
        body: dict[str, Any] = {} if text is None else {"text": text}
        if text and text.startswith("/"):
            body["entities"] = [{"type": "bot_command", "offset": 0, "length": len(text.split()[0])}]
        where = {"chat_id": group.id if group else self.id, "thread": thread, "reply_to": reply_to}
        return self._did("send", bot, person=self.user, body=body | (extra or {}), **where)

    def send_document(self, bot: BotHandle, name: str, content: bytes, *, caption: str = "") -> Said:
        document = self.telegram.do("add_file", name=name, content=base64.b64encode(content).decode())
        return self.send(bot, None, extra={"document": document} | ({"caption": caption} if caption else {}))

    def edit(self, said: Said, text: str) -> Said:
        return self._did(
            "edit", self.telegram.bots[said.token], chat_id=said.chat_id, message_id=said.message_id, text=text
        )

    def press(self, message: SentMessage, data: str) -> Said:
        """Press the inline button that carries `data`."""
        place = {"chat_id": message.chat_id, "message_id": message.message_id}
        return self._did("press", self.telegram.bots[message.token], person=self.user, data=data, **place)

    def block(self, bot: BotHandle, blocked: bool = True) -> None:
        self.telegram.do("block", token=bot.token, chat_id=self.id, blocked=blocked)

    def wait_for_reply(self, said: Said, contains: str = "", timeout: float = PATIENCE) -> SentMessage:
        """First message by a bot after `said` in its chat whose text (edits count) contains `contains`."""
        where = {"chat_id": said.chat_id, "after": said.message_id}
        return _sent(self.telegram.do("wait_for_reply", contains=contains, timeout=timeout, **where))

    def _did(self, command: str, bot: BotHandle, **arguments: Any) -> Said:
        return Said(self.telegram, bot.token, **self.telegram.do(command, token=bot.token, **arguments))


@dataclass(frozen=True)
class PlannedFault:
    telegram: "Telegram"
    number: int

    def wait_hit(self, hits: int = 1, timeout: float = PATIENCE) -> None:
        self.telegram.do("wait_for_fault", fault=self.number, hits=hits, timeout=timeout)

    def release(self) -> None:
        """Let a call go on that was held."""
        self.telegram.do("release", fault=self.number)


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
        return [_sent(message) for message in self.do("sent", chat_id=chat_id)]

    def calls(self, method: str | None = None) -> list[ApiCall]:
        return [_call(call) for call in self.do("calls", method=method)]

    def wait_for_calls(self, method: str, count: int = 1, timeout: float = PATIENCE) -> list[ApiCall]:
        return [_call(call) for call in self.do("wait_for_calls", method=method, count=count, timeout=timeout)]


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
        body = json.dumps(arguments).encode()
        request = urllib.request.Request(f"{self.url}/control/{command}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=arguments.get("timeout", PATIENCE) + 10) as answer:
            found = json.load(answer)
        if "timeout" in found:
            raise TimeoutError(found["timeout"])
        return found["result"]


def _moment(value: Sequence[float] | None) -> Moment | None:
    return Moment(*value) if value else None


def _sent(message: dict[str, Any]) -> SentMessage:
    versions = [(text, Moment(*moment)) for text, moment in message["versions"]]
    times = {"called": Moment(*message["called"]), "stored": Moment(*message["stored"])}
    return SentMessage(**message | times | {"versions": versions})


def _times(update: dict[str, Any]) -> UpdateTimes:
    times = {"enqueued": Moment(*update["enqueued"]), "confirmed": _moment(update["confirmed"])}
    return UpdateTimes(**update | times | {"fetched": [Moment(*moment) for moment in update["fetched"]]})


def _call(call: dict[str, Any]) -> ApiCall:
    return ApiCall(**call | {"called": Moment(*call["called"]), "answered": _moment(call["answered"])})


if __name__ == "__main__":
    with TelegramEmulator() as emulator:
        sys.stdout.write(f"{emulator.url}\n")
        sys.stdout.flush()
        sys.stdin.read()
