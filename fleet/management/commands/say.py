"""`manage.py say ada "text"`: talk to a bot from the terminal, through the same intake as everybody."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from enum import IntEnum
from functools import partial
from typing import Any

from django.core.management.base import CommandParser
from django.core.serializers.json import DjangoJSONEncoder

from conversations import actions
from conversations.actions import Intake
from conversations.models import Conversation, Message, Turn
from conversations.ports import UnifiedMessage
from conversations.states import TURN, Author, TurnState
from execution import queries as execution_queries
from execution.models import ExecutionEvent
from execution.states import EventKind
from fleet.api.serializers import TurnSerializer
from fleet.console.wording import cost, count, duration
from fleet.following import follow
from fleet.kernel import database
from fleet.kernel.actors import Actor
from fleet.kernel.commands import without_database
from fleet.kernel.exceptions import FleetError
from fleet.management.interrupts import Interrupts
from fleet.management.usage import SpeakingCommand, seconds
from gateways.threads import in_thread
from governance import queries as governance_queries
from identities import queries as identity_queries
from identities.models import Person

_WORRY_AFTER_SECONDS = 3.0


class Exit(IntEnum):
    """How it ended, for scripts."""

    ANSWERED = 0
    REFUSED = 2
    FAILED = 3
    STOPPED = 4
    TIMED_OUT = 5


_EXIT_OF = {
    TurnState.REPLIED: Exit.ANSWERED,
    TurnState.REFUSED: Exit.REFUSED,
    TurnState.FAILED: Exit.FAILED,
    TurnState.INTERRUPTED: Exit.FAILED,
    TurnState.STOPPED: Exit.STOPPED,
    TurnState.JOINED: Exit.ANSWERED,
}


class Command(SpeakingCommand):
    """The answer goes to stdout, everything about it to stderr."""

    help = "Send a text to a bot and print its answer as it comes. Ctrl-C stops the turn; a second one leaves."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("identity", help="the bot's slug, such as ada")
        parser.add_argument("text", help="what to say; - reads it from stdin")
        parser.add_argument(
            "--as", dest="person", metavar="USER", help="whose name to speak in (default: the operator)"
        )
        parser.add_argument("--new", action="store_true", help="begin a new conversation")
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of the text")
        parser.add_argument("--wait", type=seconds, default=600.0, metavar="SECONDS", help="wait at most so long (600)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Send, follow, and leave with the outcome's exit code."""
        self.as_json: bool = options["json"]
        try:
            text = (
                sys.stdin.buffer.read().decode(errors="surrogateescape") if options["text"] == "-" else options["text"]
            )
            with Interrupts() as self.interrupts:
                sys.exit(self._say(text, options))
        except FleetError as error:
            sys.exit(self._refused(error.as_dict()))
        except database.AWAY as away:
            sys.exit(self._refused(without_database(away).as_dict()))
        except KeyboardInterrupt:
            self._tell(
                "Left. If the message was sent already, it goes on without you; its answer will be in the console."
            )
            sys.exit(Exit.TIMED_OUT)

    def _say(self, text: str, options: dict[str, Any]) -> int:
        self.person = operator(options["person"])
        message = message_of(self.person, options["identity"], text, new=options["new"])
        received, intake = actions.accept(message, by=Actor.person(self.person))
        return self._outcome(intake, {"inbound_id": received.inbound_id}, options["wait"])

    def _outcome(self, intake: Intake, ids: dict[str, Any], wait: float) -> int:
        if intake.refusal is not None:
            return self._refused(intake.refusal, ids)
        if intake.turn_id is None:
            self._print({**ids, "turn_id": None, "status": "answered", "text": intake.answer}, intake.answer)
            return Exit.ANSWERED
        turn = Turn.objects.get(pk=intake.turn_id)
        turn, listener, ended = self._listen(turn, wait)
        return self._ended(turn, ids, listener) if ended else self._still_open(turn, ids)

    def _listen(self, turn: Turn, wait: float) -> tuple[Turn, Listener, bool]:
        """Show the turn until it ends; one whose message the running turn took is followed there."""
        until = time.monotonic() + wait
        while True:
            listener = Listener(self, turn)
            ended = asyncio.run(listener.listen(max(until - time.monotonic(), 0)))
            turn = Turn.objects.select_related("identity", "person", "execution", "taken_by").get(pk=turn.pk)
            if turn.taken_by is None:
                listener.tell()
                return turn, listener, ended
            self._tell(turn.sentence)
            turn = turn.taken_by

    def _ended(self, turn: Turn, ids: dict[str, Any], listener: Listener) -> int:
        if turn.state == TurnState.REFUSED:
            return self._refused(refusal_of(turn), {**ids, "turn_id": turn.pk})
        shown = TurnSerializer(turn).data
        self._print({**ids, **shown}, "" if listener.said else shown["text"])
        if turn.sentence and turn.sentence not in listener.told.values():
            self._tell(turn.sentence)
        self._tell(receipt(turn))
        return _EXIT_OF[TurnState(turn.state)]

    def _still_open(self, turn: Turn, ids: dict[str, Any]) -> int:
        self._print({**ids, **TurnSerializer(turn).data}, "")
        self._tell(f"Turn {turn.pk} is {turn.state}; it goes on without you. Its answer will be in the console.")
        return Exit.TIMED_OUT

    def _refused(self, refusal: dict[str, Any], ids: dict[str, Any] | None = None) -> int:
        self._print({**(ids or {}), **refusal, "status": "refused"}, "")
        self._tell(" ".join(refusal[part] for part in ("what", "why", "next_step") if refusal.get(part)))
        return Exit.REFUSED

    def _print(self, as_json: dict[str, Any], as_text: str) -> None:
        if self.as_json:
            self.stdout.write(json.dumps(as_json, cls=DjangoJSONEncoder, ensure_ascii=False))
        elif as_text:
            self.stdout.write(as_text)

    def _tell(self, line: str) -> None:
        self.stderr.write(line)

    def show(self, piece: str) -> None:
        """Write a piece of the answer as it comes."""
        if not self.as_json:
            self.stdout.write(piece, ending="")
            self.stdout.flush()

    def warn(self, line: str) -> None:
        """Tell something about the answer while it is under way."""
        self._tell(line)


class Listener:
    """Shows a turn while it happens, and turns the first Ctrl-C into a stop."""

    def __init__(self, command: Command, turn: Turn) -> None:
        self.command, self.turn = command, turn
        self.said = False
        self.told: dict[int, str] = {}  # the turn's notices by their numbers
        self._interrupted = False
        self._at_line_start = True

    async def listen(self, wait: float) -> bool:
        """Show the answer until the turn ends; False when time is over or a second Ctrl-C came."""
        loop, following = asyncio.get_running_loop(), asyncio.create_task(self._follow())
        worry = loop.call_later(_WORRY_AFTER_SECONDS, lambda: asyncio.ensure_future(self._worry()))
        interrupt = partial(loop.call_soon_threadsafe, self._interrupt, following)
        with self.command.interrupts.heard_by(interrupt):
            await asyncio.wait({following}, timeout=wait)
        worry.cancel()
        ended = following.done() and not following.cancelled()
        if ended:
            following.result()
        following.cancel()
        if not self._at_line_start:
            self.command.show("\n")
        return ended

    async def _follow(self) -> None:
        state = ""
        async for glimpse in follow(self.turn.pk, conversation_id=self.turn.conversation_id):
            if glimpse and glimpse.state != state and glimpse.state not in TURN.final:
                state = glimpse.state
                await in_thread(self.tell)
            for event in glimpse.events if glimpse else ():
                self._show_event(event)

    def tell(self) -> None:
        """Tell what the person was told about the turn since the last time, which may be the sentence that it ended with."""
        notices = Message.objects.filter(turn=self.turn, author=Author.SYSTEM).exclude(pk__in=self.told)
        for notice in notices.order_by("pk"):
            self.told[notice.pk] = notice.text
            self.command.warn(notice.text)

    def _show_event(self, event: ExecutionEvent) -> None:
        text = event.payload.get("text", "")
        if event.kind == EventKind.TEXT:
            self._show(text)
        elif event.kind == EventKind.RETRYING:
            self.command.warn(text)

    def _show(self, piece: str) -> None:
        if piece and not self.command.as_json:
            self.said, self._at_line_start = True, piece.endswith("\n")
            self.command.show(piece)

    def _interrupt(self, following: asyncio.Task[None]) -> None:
        if self._interrupted:
            following.cancel()
            return
        self._interrupted = True
        self.command.warn("Stopping. Press Ctrl-C again to leave without waiting.")
        self._stopping = asyncio.ensure_future(in_thread(self._stop))

    def _stop(self) -> None:
        by = Actor.person(self.command.person)
        actions.stop_turn(turn_id=self.turn.pk, by=by, reason=f"stopped by {by.name}")

    async def _worry(self) -> None:
        """Say why nothing happens, when there is nobody to make it happen."""
        served = await in_thread(execution_queries.takes_work)
        if served is None:
            self.command.warn("No worker is running, so the message waits. Start one with `make run`.")
        elif not served:
            self.command.warn(
                "Every worker is drained, so the message waits until one takes work again (console, Runner)."
            )


def operator(username: str | None) -> Person:
    """Return the person to speak as: the named one, else the first administrator."""
    if username:
        return identity_queries.get_person(username)
    person = identity_queries.first_admin()
    if person is None:
        raise FleetError(
            "There is nobody to speak as.",
            why="This installation has no administrator yet.",
            next_step="Run ./manage.py prepare, or name a person with --as.",
            code="nobody",
        )
    return person


def message_of(person: Person, slug: str, text: str, *, new: bool) -> UnifiedMessage:
    """Return the message, in this person's latest terminal conversation with the bot unless a new one is asked for."""
    account = f"cli:{slug[:70]}"
    latest = Conversation.objects.filter(account=account, person=person).order_by("-pk").first()
    return UnifiedMessage(
        account=account,
        event_id=str(uuid.uuid4()),
        identity_slug=slug,
        chat_id=latest.chat_id if latest and not new else f"{person.pk}:{uuid.uuid4().hex[:12]}",
        sender_id=str(person.pk),
        sender_name=person.get_full_name() or person.get_username(),
        person_id=person.pk,
        text=text,
    )


def refusal_of(turn: Turn) -> dict[str, Any]:
    """Return the refusal of a turn that was not admitted."""
    decision = next(iter(governance_queries.decisions(origin=("turn", turn.pk), limit=1)), None)
    return {"code": decision.reason_code if decision else "refused", "what": turn.sentence, "why": "", "next_step": ""}


def receipt(turn: Turn) -> str:
    """Return one line: the bot, the model, tokens, cost, and where the time went."""
    execution = turn.execution
    if execution is None:
        return f"{turn.identity.slug} · {turn.state}"
    shown = TurnSerializer(turn).data["receipt"]
    tokens_in = execution.input_uncached + execution.cache_read + execution.cache_write_5m + execution.cache_write_1h
    times = [(name, shown[f"{name}_ms"]) for name in ("queue", "engine")]
    parts = [
        turn.identity.slug,
        f"{execution.provider} {execution.model}",
        f"{count(tokens_in, 'token')} in, {count(execution.output, 'token')} out",
        cost(execution.cost_nano_usd, execution.cost_basis),
        *(f"{name} {duration(milliseconds / 1000)}" for name, milliseconds in times if milliseconds is not None),
    ]
    return " · ".join(parts)
