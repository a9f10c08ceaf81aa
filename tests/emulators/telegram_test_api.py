"""npm `telegram-test-api`: an opinion on the Bot API that is not ours.

It keeps no offsets, answers getUpdates at once, takes any token and knows no errors; use `TelegramEmulator` for those.

    with TelegramTestApi() as telegram:
        bot = telegram.add_bot("1001:test", "ada_bot")
        eva = telegram.person(501, "Eva")
        eva.send(bot, "Hello")
        text = eva.wait_for_reply(bot)
"""

import time
from dataclasses import dataclass
from typing import Any, Self

from tests.emulators import node
from tests.emulators.loopback import post
from tests.emulators.telegram_people import PATIENCE, BotHandle


@dataclass(frozen=True)
class TestApiPerson:
    __test__ = False

    url: str
    id: int
    first_name: str

    def send(self, bot: BotHandle, text: str) -> None:
        sender = {"id": self.id, "is_bot": False, "first_name": self.first_name}
        chat = {"id": self.id, "type": "private", "first_name": self.first_name}
        about = {"botToken": bot.token, "date": int(time.time())}
        post(f"{self.url}/sendMessage", about | {"from": sender, "chat": chat, "text": text})

    def wait_for_reply(self, bot: BotHandle, contains: str = "", timeout: float = PATIENCE) -> str:
        """Text of the first message to this person that contains `contains`. Asks every 20 ms: there is no push."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = next((text for text in self.replies(bot) if contains in text), None)
            if found is not None:
                return found
            time.sleep(0.02)
        raise TimeoutError(f"No message with {contains!r} reached {self.first_name} in {timeout:.0f} s.")

    def replies(self, bot: BotHandle) -> list[str]:
        history = post(f"{self.url}/getUpdatesHistory", {"token": bot.token})["result"]
        to_me = [entry["message"] for entry in history if str(entry["message"].get("chat_id")) == str(self.id)]
        return [message["text"] for message in to_me]


class TelegramTestApi:
    """`url` is for TELEGRAM_API_ROOT."""

    def start(self) -> Self:
        self._process, self.url = node.start("telegram_test_api.mjs")
        return self

    def stop(self) -> None:
        node.stop(self._process)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def add_bot(self, token: str, username: str) -> BotHandle:
        return BotHandle(token, username)

    def person(self, id: int, first_name: str) -> TestApiPerson:
        return TestApiPerson(self.url, id, first_name)
