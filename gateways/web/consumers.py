"""The two sockets of the console. They carry what their feeds read; hints over Redis only say when to read. See README.md."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine
from typing import Any
from urllib.parse import parse_qs

import structlog
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django import db

from conversations import actions as conversation_actions
from conversations import queries as conversation_queries
from fleet.kernel import database
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import FleetError
from gateways.hints import listen, wait_for
from gateways.threads import in_thread
from gateways.web.access import GONE_WRONG, NOT_ALLOWED, Closed, person_behind
from gateways.web.chat_feed import ChatFeed, Frame
from gateways.web.console_feed import ConsoleFeed
from identities.models import Person
from identities.permissions import Permission
from identities.policies import check_can

log = structlog.get_logger(__name__)
CHECK_SECONDS = 30.0


class LiveSocket(AsyncJsonWebsocketConsumer):
    """A socket that stays open only while its person may look.

    It listens for hints by itself, not through Channels' own receiver: that one would refuse the connection while Redis is away.
    """

    channel_layer_alias = ""

    async def __call__(self, *connection: Any) -> None:
        """Serve one socket. However that ends, also by an accident or a server that has no more time, all its work ends too."""
        self._woken = asyncio.Event()
        self._work: set[asyncio.Task[None]] = set()
        try:
            await super().__call__(*connection)  # type: ignore[no-untyped-call]
        finally:
            await self._end_work()

    async def connect(self) -> None:
        """Accept first: before that, no close code reaches the browser."""
        await self.accept()  # type: ignore[no-untyped-call]
        try:
            await self._check()
        except Closed as closed:
            await self.hang_up(closed.code)
            return
        self._start(self._keep_checking())
        self._start(self._follow())

    async def tell(self, frame: Frame) -> None:
        """Send one frame."""
        await self.send_json(frame)  # type: ignore[no-untyped-call]

    async def hang_up(self, code: int) -> None:
        """Close the socket with a code that tells the page why."""
        await self.close(code)  # type: ignore[no-untyped-call]

    def check(self) -> None:
        """Raise Closed or FleetError when nobody, or the wrong person, is at the other end. Runs in a thread."""
        raise NotImplementedError

    async def follow(self) -> None:
        """Send what changes, until cancelled."""
        raise NotImplementedError

    def wake(self, _hint: dict[str, Any]) -> None:
        """Look now."""
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Wait for a hint, at most so long."""
        await wait_for(self._woken, seconds)

    def listen_to(self, *topics: str) -> asyncio.Task[None]:
        """Wake at every hint about these topics, until the returned task is cancelled."""
        return self._start(listen(*topics, heard=self.wake))

    async def _follow(self) -> None:
        try:
            await self.follow()
        except Exception:
            log.exception("web.socket_failed", path=self.scope["path"])
            await self.hang_up(GONE_WRONG)

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self._check()
            except Closed as closed:
                await self.hang_up(closed.code)
            except db.Error as error:
                log.info("web.check_postponed", error=str(error))

    async def _check(self) -> None:
        try:
            await in_thread(self.check)
        except FleetError as error:
            raise Closed(NOT_ALLOWED) from error

    async def _end_work(self) -> None:
        for task in self._work:
            task.cancel()
        if self._work:
            await asyncio.wait(self._work)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task


class ConsoleConsumer(LiveSocket):
    """Tells the console's pages what is out of date."""

    # Pages fetch again at each frame, so changes are gathered for a moment; without hints they are found a little later.
    GATHER_SECONDS = 0.5
    LOOK_SECONDS = 3.0

    def check(self) -> None:
        """Ask for the right to see the fleet."""
        check_can(person_behind(self.scope), Permission.FLEET_VIEW)

    async def follow(self) -> None:
        """Send one frame for each topic that changed."""
        self.listen_to("fleet", "kill")
        feed = ConsoleFeed()
        while True:
            self._woken.clear()
            with contextlib.suppress(db.Error):
                for frame in await in_thread(feed.look):
                    await self.tell(frame)
            await asyncio.sleep(self.GATHER_SECONDS)
            await self.wait(self.LOOK_SECONDS - self.GATHER_SECONDS)


class ChatConsumer(LiveSocket):
    """Carries one conversation as it happens."""

    BUSY_LOOK_SECONDS = 2.0
    IDLE_LOOK_SECONDS = 10.0

    @property
    def conversation_id(self) -> int:
        """Return the conversation's number, from the address."""
        return int(self.scope["url_route"]["kwargs"]["conversation_id"])

    def check(self) -> None:
        """Ask whether this conversation may be read."""
        conversation_queries.get_conversation(self.conversation_id, person=person_behind(self.scope))

    async def follow(self) -> None:
        """Send events, turns and messages; listen to the execution that is under way."""
        self.listen_to(f"conversation:{self.conversation_id}")
        turn, execution, after = (self._asked(name) for name in ("turn", "execution", "after"))
        feed = ChatFeed(self.conversation_id, turn_id=turn, execution_id=execution, after=after)
        ear, heard = None, None
        while True:
            self._woken.clear()
            frames: list[Frame] = []
            with contextlib.suppress(db.Error):
                frames = await in_thread(feed.look)
            for frame in frames:
                await self.tell(frame)
            if feed.execution_id != heard:
                if ear:
                    ear.cancel()
                heard = feed.execution_id
                ear = self.listen_to(f"execution:{heard}") if heard else None
                continue  # what happened before the ear was open is found by one more look
            if not feed.more:
                await self.wait(self.BUSY_LOOK_SECONDS if feed.busy else self.IDLE_LOOK_SECONDS)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Take the one thing a page may ask for: {"type": "stop", "turn": id}."""
        if isinstance(content, dict) and content.get("type") == "stop" and isinstance(content.get("turn"), int):
            await self._try_to_stop(content["turn"])

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """Return what a page sent; what is no JSON is nothing."""
        try:
            return json.loads(text_data)
        except ValueError:
            return None

    async def _try_to_stop(self, turn_id: int) -> None:
        try:
            await in_thread(self._stop, turn_id)
        except Closed as closed:
            await self.hang_up(closed.code)
        except FleetError as error:
            await self._refuse(turn_id, error)
        except database.AWAY as away:
            await self._refuse(turn_id, database.unavailable(away))

    async def _refuse(self, turn_id: int, error: FleetError) -> None:
        await self.tell({"type": "refused", "turn": turn_id, **error.as_dict()})

    def _stop(self, turn_id: int) -> None:
        person: Person = person_behind(self.scope)
        turn = conversation_queries.get_turn(turn_id, person=person)
        check_can(person, Permission.BOT_TALK if turn.person_id == person.pk else Permission.TURN_STOP)
        conversation_actions.stop_turn(turn_id=turn.pk, by=Actor.person(person), reason="stopped on the chat page")

    def _asked(self, name: str) -> int:
        """Return a number from the address, 0 when it is missing or no number."""
        text = parse_qs(self.scope["query_string"].decode("ascii", "replace")).get(name, ["0"])[0]
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
