"""The shapes that go over the wire. They check form only; rules live in the apps."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from rest_framework import serializers

from conversations.models import Conversation, Message, Turn
from conversations.states import TURN, Author, BusyMode, TurnState
from execution.models import Execution
from governance.models import KillOrder
from governance.states import KillMode, KillScope, OrderState

NANO = 1_000_000_000


class ErrorSerializer(serializers.Serializer[Any]):
    """Why something was not done, and what to do next."""

    code = serializers.CharField(help_text="stable, for programs")
    what = serializers.CharField(help_text="what happened")
    why = serializers.CharField(allow_blank=True)
    next_step = serializers.CharField(allow_blank=True)


class KnownFieldsOnly(serializers.Serializer[Any]):
    """A body whose every field is known: a misspelt one is an error and not silently dropped."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the checked fields; ValidationError names each unknown one."""
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, dict) else []
        if unknown:
            raise serializers.ValidationError({str(name)[:60]: ["There is no such field."] for name in unknown})
        return super().to_internal_value(data)


class RawText(serializers.CharField):
    """Text as it came. Whether a bot can answer it is decided in intake, which stores what it refuses."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_blank=True, trim_whitespace=False, **options)
        self.validators = []


class SenderSerializer(KnownFieldsOnly):
    """Who speaks, as the gateway's platform knows them. `id` decides; the name is only shown."""

    id = serializers.CharField(max_length=120)
    name = serializers.CharField(max_length=150, required=False, default="", allow_blank=True)


class MessageSerializer(KnownFieldsOnly):
    """A message to a bot, in the unified format."""

    identity = serializers.SlugField(
        max_length=40, required=False, help_text="the bot's slug; a gateway's token knows it by its account"
    )
    text = RawText(help_text="at most 64 kB; a text that begins with a slash is a command")
    chat_id = serializers.CharField(
        max_length=80, required=False, default="", help_text="your name for the conversation"
    )
    thread_id = serializers.CharField(max_length=80, required=False, default="")
    message_id = serializers.CharField(max_length=120, required=False, default="")
    sender = SenderSerializer(required=False, help_text="only with a gateway's token")
    event_id = serializers.CharField(
        max_length=100, required=False, help_text="idempotency key; the header Idempotency-Key does the same"
    )


class TokensSerializer(serializers.ModelSerializer[Execution]):
    """Tokens in disjoint units."""

    class Meta:
        model = Execution
        fields = ["input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning"]


class ReceiptSerializer(serializers.ModelSerializer[Execution]):
    """What a turn took: tokens, money and time. Unknown is null, never zero."""

    tokens = TokensSerializer(source="*")
    cost_usd = serializers.SerializerMethodField(help_text="the same as a decimal text, exact to the nano-dollar")
    queue_ms = serializers.SerializerMethodField(help_text="from the message to the moment the bot had it")
    engine_ms = serializers.SerializerMethodField(help_text="from then to the end")

    class Meta:
        model = Execution
        fields = ["provider", "model", "tokens", "cost_nano_usd", "cost_usd", "cost_basis", "queue_ms", "engine_ms"]

    def get_cost_usd(self, execution: Execution) -> str | None:
        """Return `0.004200000` for 4,200,000 nano-dollars."""
        nano = execution.cost_nano_usd
        return None if nano is None else f"{nano // NANO}.{nano % NANO:09d}"

    def get_queue_ms(self, execution: Execution) -> int | None:
        """Return milliseconds from the creation of the turn to the opening of the spend gate."""
        return _milliseconds(execution.turn.created_at, execution.released_at)

    def get_engine_ms(self, execution: Execution) -> int | None:
        """Return milliseconds from the opening of the spend gate to the end."""
        return _milliseconds(execution.released_at, execution.ended_at)


def _milliseconds(start: Any, end: Any) -> int | None:
    return None if start is None or end is None else round((end - start).total_seconds() * 1000)


class TurnSerializer(serializers.ModelSerializer[Turn]):
    """One question and its answer."""

    turn_id = serializers.IntegerField(source="pk")
    status = serializers.ChoiceField(source="state", choices=TurnState.choices)
    ended = serializers.SerializerMethodField()
    conversation_id = serializers.IntegerField()
    identity = serializers.CharField(source="identity.slug")
    person = serializers.CharField(source="person.username", allow_null=True, default=None)
    text = serializers.SerializerMethodField(help_text="the answer; what there is of it when the turn was cut short")
    receipt = ReceiptSerializer(source="execution", allow_null=True)
    waits_until = serializers.DateTimeField(
        source="parked_until", allow_null=True, help_text="while queued: no login may be used before"
    )
    taken_by = serializers.IntegerField(
        source="taken_by_id",
        allow_null=True,
        help_text="when joined: the running turn that took the message and answers it",
    )
    turn_url = serializers.SerializerMethodField()
    events_url = serializers.SerializerMethodField()

    class Meta:
        model = Turn
        fields = [
            "turn_id",
            "status",
            "ended",
            "conversation_id",
            "identity",
            "person",
            "text",
            "sentence",
            "next_step",
            "created_at",
            "admitted_at",
            "waits_until",
            "ended_at",
            "taken_by",
            "receipt",
            "turn_url",
            "events_url",
        ]

    def get_ended(self, turn: Turn) -> bool:
        """Return whether the turn is over."""
        return turn.state in TURN.final

    def get_text(self, turn: Turn) -> str:
        """Return the answer."""
        return turn.execution.answer if turn.execution else ""

    def get_turn_url(self, turn: Turn) -> str:
        """Return where this turn can be read again."""
        return reverse("api:turn", args=[turn.pk])

    def get_events_url(self, turn: Turn) -> str:
        """Return where its events stream."""
        return reverse("api:turn-events", args=[turn.pk])


class AcceptedSerializer(serializers.Serializer[Any]):
    """A message was taken in."""

    inbound_id = serializers.IntegerField()
    turn_id = serializers.IntegerField(allow_null=True, help_text="null for a command")
    status = serializers.CharField(help_text="the turn's state; `answered` for a command")
    events_url = serializers.CharField(allow_null=True)
    turn_url = serializers.CharField(allow_null=True)
    text = serializers.CharField(required=False, help_text="a command's answer")


class ConversationSerializer(serializers.ModelSerializer[Conversation]):
    """A thread of talk between people and a bot."""

    identity = serializers.CharField(source="identity.slug")
    person = serializers.CharField(source="person.username", allow_null=True, default=None)

    class Meta:
        model = Conversation
        fields = ["id", "account", "identity", "person", "kind", "title", "busy_mode", "created_at", "last_message_at"]


class BusyModeSerializer(KnownFieldsOnly):
    """What becomes of messages that find the bot busy."""

    busy_mode = serializers.ChoiceField(choices=BusyMode.choices)


class SaidSerializer(serializers.ModelSerializer[Message]):
    """One thing that was said."""

    author = serializers.ChoiceField(choices=Author.choices)
    turn_id = serializers.IntegerField(allow_null=True)

    class Meta:
        model = Message
        fields = ["id", "turn_id", "author", "name", "text", "created_at"]


class PageSerializer(serializers.Serializer[Any]):
    """Where to look: before which id, and how many rows."""

    before = serializers.IntegerField(
        min_value=1, max_value=2**63 - 1, required=False, help_text="only ids below this one"
    )
    limit = serializers.IntegerField(min_value=1, max_value=100, required=False, default=30)


class WaitSerializer(serializers.Serializer[Any]):
    """How long to hold the answer back."""

    wait = serializers.FloatField(
        min_value=0, max_value=120, required=False, default=0, help_text="seconds to wait for the end of the turn"
    )


class ReasonSerializer(KnownFieldsOnly):
    """Why."""

    reason = serializers.CharField(max_length=200)


class OptionalReasonSerializer(KnownFieldsOnly):
    """Why, if there is something to say."""

    reason = serializers.CharField(max_length=160, required=False, default="")


class StopSerializer(KnownFieldsOnly):
    """What to stop, how hard, and why."""

    scope = serializers.ChoiceField(choices=KillScope.choices)
    scope_id = serializers.CharField(
        max_length=80, required=False, default="", help_text="the bot's slug or the row's id; empty for the fleet"
    )
    mode = serializers.ChoiceField(choices=KillMode.choices, required=False, default=KillMode.STOP)
    reason = serializers.CharField(max_length=400)


class KillOrderSerializer(serializers.ModelSerializer[KillOrder]):
    """A kill order."""

    state = serializers.ChoiceField(choices=OrderState.choices)
    url = serializers.SerializerMethodField()

    class Meta:
        model = KillOrder
        fields = [
            "id",
            "scope",
            "scope_id",
            "mode",
            "reason",
            "state",
            "epoch",
            "ordered_at",
            "ordered_by",
            "quiet_at",
            "lifted_at",
            "lifted_by",
            "lift_reason",
            "url",
        ]

    def get_url(self, order: KillOrder) -> str:
        """Return where its receipt can be read."""
        return reverse("api:kill-order", args=[order.pk])


class ReceiptLineSerializer(serializers.Serializer[Any]):
    """One thing that had to fall silent."""

    kind = serializers.CharField(help_text="process, queue or channel")
    subject = serializers.CharField()
    sentence = serializers.CharField(allow_blank=True)
    expected = serializers.BooleanField(help_text="false: it came up after the order and was caught")
    killed = serializers.BooleanField(allow_null=True, help_text="false: it ended by itself; null: still alive")
    milliseconds = serializers.IntegerField(allow_null=True, help_text="time to quiet; null while it is alive")


class AfterSerializer(serializers.Serializer[Any]):
    """From which id to go on."""

    after = serializers.IntegerField(
        min_value=0, max_value=2**63 - 1, required=False, default=0, help_text="only ids above this one"
    )


class KillReceiptSerializer(serializers.Serializer[Any]):
    """A kill order with the proof that it was carried out."""

    order = KillOrderSerializer()
    alive = serializers.IntegerField(source="still_alive", help_text="how many of all lines are not quiet yet")
    lines = ReceiptLineSerializer(many=True, help_text="one page: what is alive first, then what became quiet")
    after = serializers.IntegerField(allow_null=True, help_text="asks for the next quiet lines; null at the end")
    milliseconds = serializers.IntegerField(allow_null=True, help_text="until the last line was quiet")
    overdue = serializers.BooleanField(help_text="something has been alive for too long")
