"""Everybody and everything behind the Bot API emulator: bots, chats, updates, messages and planned faults.

Lives on one event loop and is only touched there, so it needs no locks.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

from tests.emulators.telegram_errors import BadRequest, Forbidden, TelegramError

FIRST_UPDATE = 700_000_001


class Moment(NamedTuple):
    """Seconds of `time.monotonic()` (the same for all processes of a machine) and of `time.time()`."""

    monotonic: float
    wall: float


def now() -> Moment:
    return Moment(time.monotonic(), time.time())


@dataclass
class Update:
    """Something a bot is to be told, as the Bot API words it, with the times of its way there."""

    payload: dict[str, Any]
    enqueued: Moment = field(default_factory=now)
    fetched: list[Moment] = field(default_factory=list)
    confirmed: Moment | None = None
    again: bool = False

    @property
    def id(self) -> int:
        return self.payload["update_id"]

    @property
    def kind(self) -> str:
        return next(name for name in self.payload if name != "update_id")


@dataclass
class Bot:
    token: str
    username: str
    id: int
    updates: list[Update] = field(default_factory=list)
    commands: list[dict[str, Any]] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    poll: asyncio.Event | None = None
    update_ids: Any = None

    @property
    def user(self) -> dict[str, Any]:
        return {"id": self.id, "is_bot": True, "first_name": self.username, "username": self.username}


@dataclass
class Chat:
    id: int
    about: dict[str, Any]
    topics: set[int] = field(default_factory=set)
    blocked: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)
    moved_to: int | None = None
    message_ids: Any = field(default_factory=lambda: count(1))

    @property
    def is_private(self) -> bool:
        return self.about["type"] == "private"

    @property
    def as_api(self) -> dict[str, Any]:
        return {"id": self.id, **self.about}


@dataclass
class Message:
    """One message in a chat; `versions` are its texts with their moments, the last is what people see."""

    chat_id: int
    id: int
    payload: dict[str, Any]
    author: str
    versions: list[tuple[str, Moment]]
    called: Moment
    deleted: bool = False

    @property
    def text(self) -> str:
        return self.versions[-1][0]


@dataclass
class Call:
    """One Bot API call. `status` is 0 while it runs and when the connection was dropped."""

    token: str
    method: str
    parameters: dict[str, Any]
    called: Moment = field(default_factory=now)
    answered: Moment | None = None
    status: int = 0


@dataclass
class Fault:
    """What goes wrong with the next `times` calls of `method` (to `chat_id`, of the bot `token`, when given).

    status: answer this error. drop: hang up "before" or "after" the call took effect. delay: seconds before the call
    takes effect. hold: wait after it took effect until released.
    """

    method: str
    times: int = 1
    token: str | None = None
    chat_id: int | None = None
    status: int | None = None
    description: str = ""
    retry_after: int | None = None
    drop: str | None = None
    delay: float = 0.0
    hold: bool = False
    hits: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def fits(self, call: Call) -> bool:
        chat = call.parameters.get("chat_id")
        return (
            self.hits < self.times
            and self.method == call.method
            and self.token in (None, call.token)
            and (self.chat_id is None or str(self.chat_id) == str(chat))
        )

    def error(self) -> TelegramError | None:
        if self.retry_after is not None:
            text = self.description or f"Too Many Requests: retry after {self.retry_after}"
            return TelegramError(self.status or 429, text, retry_after=self.retry_after)
        return TelegramError(self.status, self.description or "Internal Server Error") if self.status else None


class World:
    def __init__(self) -> None:
        self.bots: dict[str, Bot] = {}
        self.chats: dict[int, Chat] = {}
        self.messages: dict[tuple[int, int], Message] = {}
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.callbacks: dict[str, str] = {}
        self.files: dict[str, tuple[str, bytes]] = {}
        self._changed = asyncio.Condition()

    async def changed(self) -> None:
        """Wake everyone who waits for something to happen."""
        async with self._changed:
            self._changed.notify_all()

    async def wait_until(self, find: Callable[[], Any], timeout: float) -> Any:
        """First true value of `find`; raises TimeoutError."""
        async with asyncio.timeout(timeout), self._changed:
            return await self._changed.wait_for(find)

    def fault_for(self, call: Call) -> Fault | None:
        fault = next((fault for fault in self.faults if fault.fits(call)), None)
        if fault:
            fault.hits += 1
        return fault

    def add_bot(self, token: str, username: str) -> Bot:
        bot = self.bots[token] = Bot(token, username, int(token.split(":")[0]))
        bot.update_ids = count(FIRST_UPDATE)
        return bot

    def deliver(self, bot: Bot, kind: str, body: dict[str, Any]) -> Update:
        update = Update({"update_id": next(bot.update_ids), kind: body})
        if not bot.allowed or kind in bot.allowed:
            bot.updates.append(update)
        return update

    def destination(self, bot: Bot, chat_id: int, thread: int | None) -> Chat:
        """The chat a bot may write to. Raises the Bot API's refusals."""
        chat = self.chats.get(chat_id)
        if chat is None:
            raise BadRequest("chat not found")
        if chat.moved_to:
            raise BadRequest("group chat was upgraded to a supergroup chat", migrate_to_chat_id=chat.moved_to)
        if bot.token in chat.blocked:
            raise Forbidden("bot was blocked by the user" if chat.is_private else "bot was kicked from the group chat")
        if chat.is_private and bot.token not in chat.started:
            raise Forbidden("bot can't initiate conversation with a user")
        if thread is not None and thread not in chat.topics:
            raise BadRequest("message thread not found")
        return chat

    def message(self, chat_id: int, message_id: int | None, refusal: str) -> Message:
        found = self.messages.get((chat_id, message_id or 0))
        if found is None or found.deleted:
            raise BadRequest(refusal)
        return found

    def store(self, chat: Chat, body: dict[str, Any], author: str, called: Moment) -> Message:
        number = next(chat.message_ids)
        payload = {"message_id": number, "date": int(time.time()), "chat": chat.as_api, **body}
        versions = [(body.get("text") or body.get("caption") or "", now())]
        message = Message(chat.id, number, payload, author, versions, called)
        self.messages[(chat.id, number)] = message
        return message
