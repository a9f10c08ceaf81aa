"""Conversations, what was received, the turns it became, what was said, and what has to be delivered."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from conversations.states import (
    DELIVERY,
    INBOUND,
    SESSION,
    TURN,
    UNDELIVERED,
    Author,
    BusyMode,
    ConversationKind,
    DeliveryKind,
    DeliveryState,
    InboundState,
    SessionState,
    TurnState,
)
from execution.models import Execution
from fleet.kernel.transitions import steps_trigger
from identities.models import Identity, Person


class Conversation(models.Model):
    """One thread of talk between people and a bot, in one place: gateway account, chat and thread.

    `account` names the gateway account, such as `telegram:ada` or `web:ada`.
    """

    account = models.CharField(max_length=80)
    chat_id = models.CharField(max_length=120)
    thread_id = models.CharField(max_length=120, blank=True)
    identity = models.ForeignKey(Identity, on_delete=models.PROTECT, related_name="conversations")
    person = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, blank=True, related_name="conversations")
    kind = models.CharField(max_length=8, choices=ConversationKind.choices, default=ConversationKind.CHAT)
    title = models.CharField(max_length=120, blank=True)
    busy_mode = models.CharField(max_length=10, choices=BusyMode.choices, default=BusyMode.COLLECT)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    last_message_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "chat_id", "thread_id", "identity", "kind"], name="one_conversation_per_place"
            )
        ]
        indexes = [
            models.Index(fields=["identity", "-last_message_at"], name="conversation_recent"),
            models.Index(fields=["-last_message_at", "-id"], name="conversation_latest"),
        ]

    def __str__(self) -> str:
        return self.title or f"{self.account} {self.chat_id}"


class Session(models.Model):
    """The provider session a conversation continues. Any change of its binding rotates it; the parent is kept."""

    conversation = models.ForeignKey(Conversation, on_delete=models.PROTECT, related_name="sessions")
    state = models.CharField(max_length=8, choices=SessionState.choices, default=SessionState.OPEN)
    provider = models.CharField(max_length=20)
    provider_session_id = models.CharField(max_length=80)
    model = models.CharField(max_length=80)
    binding = models.CharField(max_length=64, help_text="SHA-256 over provider, model, cwd, prompt, tools and login")
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="children")
    rotation_reason = models.CharField(max_length=120, blank=True)
    seed = models.TextField(blank=True, help_text="bounded summary of the parent, given to the first turn")
    turns = models.PositiveIntegerField(default=0)
    failures = models.PositiveSmallIntegerField(default=0, help_text="in a row")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    last_used_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["conversation"], condition=Q(state="open"), name="one_open_session_per_conversation"
            ),
            # What was said in a session is known to whoever gets its id, and ids are given out by workers that start processes ahead.
            models.UniqueConstraint(fields=["provider_session_id"], name="session_of_one_conversation"),
        ]
        triggers = [steps_trigger(SESSION)]

    def __str__(self) -> str:
        return f"session {self.provider_session_id} of conversation {self.conversation_id}"


class Turn(models.Model):
    """One question and its answer. Owns its inbox rows, reply route, execution and deliveries; closes in one transaction.

    At most one turn of a conversation holds the lane (admitted, running or waiting); the database guarantees it.
    """

    conversation = models.ForeignKey(Conversation, on_delete=models.PROTECT, related_name="turns")
    identity = models.ForeignKey(Identity, on_delete=models.PROTECT, related_name="turns")
    person = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, blank=True, related_name="turns")
    session = models.ForeignKey(Session, on_delete=models.PROTECT, null=True, blank=True, related_name="turn_rows")
    execution = models.OneToOneField(Execution, on_delete=models.PROTECT, null=True, blank=True, related_name="turn")
    state = models.CharField(max_length=12, choices=TurnState.choices, default=TurnState.QUEUED)
    origin = models.CharField(max_length=20, default="chat")
    route = models.JSONField(
        help_text="where the answer goes: account, chat_id, thread_id, reply_to; copied at creation"
    )
    sentence = models.TextField(blank=True, help_text="why it was refused, failed or stopped")
    next_step = models.TextField(blank=True)
    tries = models.PositiveSmallIntegerField(
        default=0, help_text="executions that ended without effect and were followed by another"
    )
    taken_by = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="took",
        help_text="the running turn that took its message",
    )
    parked_until = models.DateTimeField(null=True, blank=True, help_text="while queued: it is not begun before")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    admitted_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["conversation"],
                condition=Q(state__in=[TurnState.ADMITTED, TurnState.RUNNING, TurnState.WAITING]),
                name="one_active_turn_per_lane",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=TURN.final) | Q(ended_at__isnull=False), name="turn_ends_with_a_time"
            ),
            models.CheckConstraint(
                condition=~Q(state="joined") | Q(taken_by__isnull=False), name="joined_means_taken_by_a_turn"
            ),
        ]
        indexes = [
            models.Index(fields=["conversation", "id"], condition=Q(state="queued"), name="turn_queue"),
            models.Index(fields=["conversation", "-id"], name="turn_recent"),
            models.Index(fields=["state", "id"], condition=Q(state__in=TURN.live), name="turn_live"),
        ]
        triggers = [steps_trigger(TURN)]

    def __str__(self) -> str:
        return f"turn {self.pk} ({self.state})"


class Told(models.Model):
    """That something which lasts was told in a conversation, so that it is told once."""

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="told")
    key = models.CharField(max_length=200)
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name_plural = "told"
        constraints = [models.UniqueConstraint(fields=["conversation", "key"], name="told_once")]

    def __str__(self) -> str:
        return f"{self.key} in conversation {self.conversation_id}"


class InboundMessage(models.Model):
    """A message in the unified format, stored before the platform is told that we have it.

    `uuid` is the provider's idempotency key. `account` comes from the adapter's configuration, never from the text.
    """

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    account = models.CharField(max_length=80)
    event_id = models.CharField(
        max_length=160, help_text="the platform's id of the event, or the caller's idempotency key"
    )
    digest = models.CharField(
        max_length=64, help_text="SHA-256 over the body, to tell a replay from a reuse of the key"
    )
    identity_slug = models.CharField(max_length=60)
    kind = models.CharField(max_length=8, choices=ConversationKind.choices, default=ConversationKind.CHAT)
    chat_id = models.CharField(max_length=120)
    thread_id = models.CharField(max_length=120, blank=True)
    message_id = models.CharField(max_length=120, blank=True)
    sender_id = models.CharField(max_length=120)
    sender_name = models.CharField(max_length=150, blank=True)
    sender_kind = models.CharField(max_length=10, default="person")
    person = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    text = models.TextField()
    media = models.JSONField(default=list)
    platform_at = models.DateTimeField(null=True, blank=True)
    received_at = models.DateTimeField(db_default=Now(), editable=False)
    state = models.CharField(max_length=10, choices=InboundState.choices, default=InboundState.RECEIVED)
    refusal = models.JSONField(null=True, blank=True, help_text="code, what, why, next_step")
    conversation = models.ForeignKey(
        Conversation, on_delete=models.PROTECT, null=True, blank=True, related_name="inbound"
    )
    turn = models.ForeignKey(Turn, on_delete=models.PROTECT, null=True, blank=True, related_name="inbound")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "event_id"], name="one_row_per_event"),
            models.CheckConstraint(condition=~Q(state="taken") | Q(turn__isnull=False), name="taken_means_in_a_turn"),
            models.CheckConstraint(
                condition=~Q(state="refused") | Q(refusal__isnull=False), name="refused_means_with_a_reason"
            ),
        ]
        indexes = [models.Index(fields=["received_at"], condition=Q(state="received"), name="inbound_waiting")]
        triggers = [steps_trigger(INBOUND)]

    def __str__(self) -> str:
        return f"{self.account} {self.event_id}"


class Message(models.Model):
    """One thing that was said, as people see it."""

    conversation = models.ForeignKey(Conversation, on_delete=models.PROTECT, related_name="messages")
    turn = models.ForeignKey(Turn, on_delete=models.PROTECT, null=True, blank=True, related_name="messages")
    author = models.CharField(max_length=8, choices=Author.choices)
    name = models.CharField(max_length=150, blank=True)
    text = models.TextField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [models.Index(fields=["conversation", "-id"], name="message_recent")]

    def __str__(self) -> str:
        return f"{self.author}: {self.text[:40]}"


class Delivery(models.Model):
    """The outbox: one message to one place. Written with the change that causes it, sent by the gateway afterwards."""

    turn = models.ForeignKey(Turn, on_delete=models.PROTECT, null=True, blank=True, related_name="deliveries")
    inbound = models.ForeignKey(
        InboundMessage, on_delete=models.PROTECT, null=True, blank=True, related_name="deliveries"
    )
    account = models.CharField(max_length=80)
    chat_id = models.CharField(max_length=120)
    thread_id = models.CharField(max_length=120, blank=True)
    reply_to = models.CharField(max_length=120, blank=True)
    kind = models.CharField(max_length=10, choices=DeliveryKind.choices)
    text = models.TextField()
    state = models.CharField(max_length=12, choices=DeliveryState.choices, default=DeliveryState.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    not_before = models.DateTimeField(db_default=Now())
    receipts = models.JSONField(default=list, help_text="one per part: the platform's message id")
    doubtful = models.BooleanField(default=False, help_text="was unknown once: resent with a visible mark")
    sentence = models.TextField(blank=True, help_text="what the platform said when it refused")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    asked_at = models.DateTimeField(
        null=True, blank=True, help_text="when a person asked for it to be sent all the same; its age counts from here"
    )
    sending_since = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [
            models.UniqueConstraint(fields=["turn"], condition=Q(kind="answer"), name="one_answer_per_turn"),
        ]
        indexes = [
            models.Index(
                fields=["account", "chat_id", "id"],
                condition=Q(state__in=["pending", "sending", "unknown"]),
                name="delivery_outbox",
            ),
            models.Index(
                fields=["account", "chat_id", "created_at"],
                condition=Q(state__in=UNDELIVERED, turn__isnull=True),
                name="delivery_undelivered",
            ),
        ]
        triggers = [steps_trigger(DELIVERY)]

    def __str__(self) -> str:
        return f"delivery {self.pk} to {self.account} {self.chat_id} ({self.state})"
