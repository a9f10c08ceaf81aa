"""People, groups and bots of the emulated Telegram as a test handles them, and what it gets to see of messages."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.emulators.telegram_world import Moment

if TYPE_CHECKING:
    from tests.emulators.telegram import Telegram

PATIENCE = 120.0


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
        return update_times(self.telegram.do("update", token=self.token, update_id=self.update_id))

    def wait_confirmed(self, timeout: float = PATIENCE) -> UpdateTimes:
        """Wait until the bot asked for a higher offset."""
        who = {"token": self.token, "update_id": self.update_id}
        return update_times(self.telegram.do("wait_confirmed", timeout=timeout, **who))

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
        return sent_message(self.telegram.do("wait_for_reply", contains=contains, timeout=timeout, **where))

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


def _moment(value: Sequence[float] | None) -> Moment | None:
    return Moment(*value) if value else None


def sent_message(message: dict[str, Any]) -> SentMessage:
    versions = [(text, Moment(*moment)) for text, moment in message["versions"]]
    times = {"called": Moment(*message["called"]), "stored": Moment(*message["stored"])}
    return SentMessage(**message | times | {"versions": versions})


def update_times(update: dict[str, Any]) -> UpdateTimes:
    times = {"enqueued": Moment(*update["enqueued"]), "confirmed": _moment(update["confirmed"])}
    return UpdateTimes(**update | times | {"fetched": [Moment(*moment) for moment in update["fetched"]]})


def api_call(call: dict[str, Any]) -> ApiCall:
    return ApiCall(**call | {"called": Moment(*call["called"]), "answered": _moment(call["answered"])})
