"""Executions, their events, the workers that own them, and results nobody owns any more."""

from __future__ import annotations

import uuid
from typing import Any

import pgtrigger
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q, sql
from django.db.models.functions import Now

from execution.ports import ProcessFacts
from execution.states import (
    BREAKER,
    EXECUTION,
    LEASED,
    OFFER,
    BreakerState,
    Cause,
    EventKind,
    ExecutionState,
    OfferState,
    OutcomeClass,
    SpendStage,
    is_due,
)
from fleet.kernel.transitions import steps_trigger
from identities.models import Identity


class Worker(models.Model):
    """One incarnation of a worker process: a new random id at every start, never a hostname."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    host = models.CharField(max_length=120)
    boot_id = models.CharField(max_length=64, help_text="boot and PID namespace")
    pid = models.PositiveIntegerField()
    pid_started_at = models.FloatField(help_text="seconds after boot: pids are reused, this pair is not")
    slots = models.PositiveIntegerField()
    unconfined = models.TextField(
        blank=True, db_default="", help_text="why CLIs get no sandbox on this host; empty: they do"
    )
    started_at = models.DateTimeField(db_default=Now(), editable=False)
    beat_at = models.DateTimeField(db_default=Now())
    stopped_at = models.DateTimeField(null=True, blank=True)
    draining_at = models.DateTimeField(null=True, blank=True, help_text="takes nothing new since; empty: takes work")
    listens = models.BooleanField(default=False, db_default=False, help_text="reads hints that are meant for it alone")
    version = models.CharField(max_length=40, blank=True, db_default="")

    class Meta:
        indexes = [models.Index(fields=["beat_at"], condition=Q(stopped_at=None), name="worker_alive")]

    def __str__(self) -> str:
        return f"worker {self.host}:{self.pid}"


class ExecutionQuerySet(models.QuerySet["Execution"]):
    """Filters of executions, and the one statement by which ownership changes."""

    def as_claimed(self, execution: Execution) -> ExecutionQuerySet:
        """Return the row, whatever its state, as long as it stands as the claim that returned `execution` left it.

        The moment of the claim tells one that a crash of PostgreSQL took back from the one that the same worker made after it.
        """
        same = {"epoch": execution.epoch, "owner_id": execution.owner_id, "claimed_at": execution.claimed_at}
        return self.filter(pk=execution.pk, **same)

    def owned(self, execution: Execution) -> ExecutionQuerySet:
        """Return the row as long as the worker that claimed `execution` still owns it."""
        return self.as_claimed(execution).filter(state__in=LEASED)

    def update_returning(self, **values: Any) -> list[Execution]:
        """Update the rows of this query and return them as they are now, in one statement."""
        query: sql.UpdateQuery = self.query.chain(sql.UpdateQuery)  # type: ignore[assignment]  # the stubs know one class only
        query.add_update_values(values)
        statement, parameters = query.get_compiler(self.db).as_sql()
        return list(self.model._base_manager.using(self.db).raw(f"{statement} RETURNING *", parameters))


class Execution(models.Model):
    """One provider turn: who asked (as text), who thinks, who owns it, what it cost and how it ended.

    `epoch` grows whenever ownership may have changed; every write of a worker matches id, epoch, owner and the moment of its claim.
    """

    origin_kind = models.CharField(max_length=20)
    origin_id = models.CharField(max_length=80)
    conversation_id = models.BigIntegerField(
        null=True, blank=True, help_text="where it was asked, if anywhere: a kill order may name the conversation"
    )
    identity = models.ForeignKey(Identity, on_delete=models.PROTECT, related_name="executions")
    provider = models.CharField(max_length=20)
    model = models.CharField(max_length=80)
    login = models.CharField(max_length=40, blank=True, help_text="the login its breaker guards; empty: none does")
    is_probe = models.BooleanField(default=False, help_text="it tries a login whose breaker is half open")
    attempt = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=20, choices=ExecutionState.choices, default=ExecutionState.QUEUED)
    outcome = models.CharField(max_length=20, choices=OutcomeClass.choices, blank=True)
    cause = models.CharField(max_length=20, choices=Cause.choices, blank=True)
    sentence = models.TextField(blank=True)
    retry_at = models.DateTimeField(null=True, blank=True)

    preferred_worker_id = models.UUIDField(
        null=True, blank=True, db_default=None, help_text="may take it alone at first, since it holds the session"
    )
    epoch = models.BigIntegerField(default=0)
    owner = models.ForeignKey(Worker, on_delete=models.PROTECT, null=True, blank=True, related_name="executions")
    lease_until = models.DateTimeField(null=True, blank=True)
    spend_stage = models.CharField(max_length=10, choices=SpendStage.choices, default=SpendStage.NONE)
    kill_epoch = models.BigIntegerField(default=0)
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    stop_reason = models.CharField(max_length=200, blank=True)

    host = models.CharField(max_length=120, blank=True)
    boot_id = models.CharField(max_length=64, blank=True)
    pid = models.PositiveIntegerField(null=True, blank=True)
    pid_started_at = models.FloatField(null=True, blank=True, help_text="seconds after boot")
    marker = models.CharField(
        max_length=40,
        blank=True,
        help_text="names the run in what it started, and the door at which another worker takes it over",
    )
    process_gone_at = models.DateTimeField(null=True, blank=True)

    prompt = models.JSONField(default=list, help_text="the messages: [{uuid, text}]")
    offered = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="messages that were offered to it while it ran"
    )
    session_id = models.CharField(max_length=80, blank=True)
    session_turns = models.PositiveIntegerField(default=0, help_text="turns the session had had before this one")
    fork_of = models.CharField(
        max_length=80, blank=True, db_default="", help_text="the session whose memory a new one begins with"
    )
    reservation_id = models.BigIntegerField(null=True, blank=True)
    versions = models.JSONField(default=dict)
    provider_version = models.CharField(max_length=40, blank=True)
    answer = models.TextField(blank=True)
    details = models.JSONField(default=dict)

    queued_at = models.DateTimeField(db_default=Now(), editable=False)
    claimed_at = models.DateTimeField(null=True, blank=True)
    spawned_at = models.DateTimeField(null=True, blank=True)
    ready_at = models.DateTimeField(null=True, blank=True)
    released_at = models.DateTimeField(null=True, blank=True)
    first_event_at = models.DateTimeField(null=True, blank=True)
    first_text_at = models.DateTimeField(null=True, blank=True)
    provider_ended_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    tool_calls = models.PositiveIntegerField(default=0)
    input_uncached = models.BigIntegerField(default=0)
    cache_read = models.BigIntegerField(default=0)
    cache_write_5m = models.BigIntegerField(default=0)
    cache_write_1h = models.BigIntegerField(default=0)
    output = models.BigIntegerField(default=0)
    reasoning = models.BigIntegerField(default=0)
    cost_nano_usd = models.BigIntegerField(null=True, blank=True, help_text="empty: not known")
    cost_basis = models.CharField(max_length=20, blank=True, help_text="priced, free, at_least or unknown")

    objects = ExecutionQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["queued_at"], condition=Q(state="queued"), name="execution_queued"),
            models.Index(
                fields=["lease_until"],
                condition=Q(state__in=LEASED),
                name="execution_leased",
            ),
            models.Index(fields=["origin_kind", "origin_id"], name="execution_origin"),
            models.Index(fields=["identity", "-id"], name="execution_identity"),
            models.Index(fields=["session_id"], name="execution_session"),
            models.Index(
                fields=["pid"], condition=Q(pid__isnull=False, process_gone_at=None), name="execution_not_seen_gone"
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["origin_kind", "origin_id"],
                condition=Q(state__in=EXECUTION.live),
                name="one_live_execution_per_origin",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["queued", *EXECUTION.final]) | Q(owner__isnull=False, lease_until__isnull=False),
                name="execution_owned_while_running",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=EXECUTION.final) | (Q(ended_at__isnull=False) & ~Q(outcome="")),
                name="execution_ends_with_an_outcome",
            ),
            models.CheckConstraint(
                condition=~Q(state="stopped") | Q(pid__isnull=True) | Q(process_gone_at__isnull=False),
                name="execution_stopped_means_process_gone",
            ),
        ]
        triggers = [steps_trigger(EXECUTION)]

    def __str__(self) -> str:
        return f"execution {self.pk} of {self.origin_kind} {self.origin_id}"

    @property
    def told(self) -> list[str]:
        """Return what its provider had to say beside the answer and that is still true after it (ports.Notice)."""
        return list(self.details.get("told", ()))


class Offer(models.Model):
    """A message that is offered to a turn which runs already. Only what its provider confirmed is `taken`.

    `uuid` is the inbox row's, and the provider's name for the message: it is offered once in its life.
    """

    execution = models.ForeignKey(Execution, on_delete=models.PROTECT, related_name="offers")
    uuid = models.UUIDField(unique=True, editable=False)
    text = models.TextField()
    state = models.CharField(max_length=8, choices=OfferState.choices, default=OfferState.OFFERED)
    doubtful = models.BooleanField(
        default=False, db_default=False, help_text="returned although the turn may have seen it: nobody could tell"
    )
    offered_at = models.DateTimeField(db_default=Now(), editable=False)
    handed_at = models.DateTimeField(null=True, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["execution", "id"], name="offer_of_execution")]
        constraints = [
            # One at a time: what was said first is heard first, also when nobody can tell what became of it.
            models.UniqueConstraint(
                fields=["execution"], condition=Q(state="handed"), name="one_offer_handed_at_a_time"
            ),
            models.CheckConstraint(
                condition=~Q(state__in=OFFER.final) | Q(decided_at__isnull=False), name="offer_is_decided_at_a_time"
            ),
        ]
        triggers = [steps_trigger(OFFER)]

    def __str__(self) -> str:
        return f"offer {self.uuid} to execution {self.execution_id} ({self.state})"


class HeldProcess(models.Model):
    """A provider's process that stays in a worker: for the next turn of its session, or for the first turn of a session to come.

    Written for dispatch and for people. What the worker has in memory decides; a row that is missing costs time and nothing else.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    worker = models.ForeignKey(Worker, on_delete=models.PROTECT, related_name="held")
    identity = models.ForeignKey(Identity, on_delete=models.PROTECT, related_name="held_processes")
    conversation_id = models.BigIntegerField(null=True, blank=True, help_text="empty: no conversation has it yet")
    provider = models.CharField(max_length=20)
    model = models.CharField(max_length=80)
    session_id = models.CharField(max_length=80)
    turns = models.PositiveIntegerField(default=0, help_text="turns it has answered; 0: started ahead")
    pid = models.PositiveIntegerField(null=True, blank=True)
    pid_started_at = models.FloatField(null=True, blank=True, help_text="seconds after boot")
    megabytes = models.PositiveIntegerField(
        null=True, blank=True, help_text="with everything below it; empty: not weighed yet"
    )
    weighed_at = models.DateTimeField(null=True, blank=True)
    began_at = models.DateTimeField()
    idle_since = models.DateTimeField()
    end_requested_at = models.DateTimeField(null=True, blank=True)
    end_requested_by = models.CharField(max_length=150, blank=True)

    class Meta:
        verbose_name_plural = "held processes"
        indexes = [models.Index(fields=["session_id"], name="held_session")]

    def __str__(self) -> str:
        return f"process {self.pid} for session {self.session_id}"

    @property
    def process(self) -> ProcessFacts | None:
        """Return which process it is on which machine; None for a provider without one."""
        if self.pid is None or self.pid_started_at is None:
            return None
        return ProcessFacts(self.pid, self.pid_started_at, self.worker.host, self.worker.boot_id)


class ExecutionEvent(models.Model):
    """One line of what happened in an execution. Append-only; the sequence has no gaps and starts at 1."""

    execution = models.ForeignKey(Execution, on_delete=models.CASCADE, related_name="events")
    sequence = models.PositiveIntegerField()
    kind = models.CharField(max_length=20, choices=EventKind.choices)
    payload = models.JSONField(default=dict)
    through = models.PositiveIntegerField(
        null=True, blank=True, help_text="how many of the provider's events are written, once this line is"
    )
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["execution", "sequence"], name="one_event_per_sequence")]
        indexes = [BrinIndex(fields=["at"], name="execution_event_at")]
        triggers = [pgtrigger.Protect(name="no_update", operation=pgtrigger.Update)]

    def __str__(self) -> str:
        return f"{self.execution_id}/{self.sequence} {self.kind}"


class OrphanResult(models.Model):
    """What a fenced worker still had: it was paid for, so it is kept, and it never overwrites what the new owner wrote."""

    execution = models.ForeignKey(Execution, on_delete=models.PROTECT, related_name="orphan_results")
    epoch = models.BigIntegerField()
    worker_id = models.UUIDField()
    outcome = models.CharField(max_length=20)
    answer = models.TextField(blank=True)
    details = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return f"orphan of execution {self.execution_id}, epoch {self.epoch}"


class Breaker(models.Model):
    """Whether a login may be used now. A login without a row has never been in trouble.

    `opening` counts how often its users were promised a moment: what people are told of one opening they are told once.
    """

    provider = models.CharField(max_length=20)
    login = models.CharField(max_length=40)
    state = models.CharField(max_length=10, choices=BreakerState.choices, default=BreakerState.CLOSED)
    cause = models.CharField(max_length=20, choices=Cause.choices, blank=True)
    sentence = models.TextField(blank=True, help_text="what the provider's end said")
    opened_at = models.DateTimeField(null=True, blank=True)
    until = models.DateTimeField(null=True, blank=True, help_text="when one execution may try it again")
    named = models.BooleanField(default=False, help_text="the provider named that moment")
    opening = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0, help_text="in a row")
    failed_execution_id = models.BigIntegerField(null=True, blank=True, help_text="the last one that met the trouble")
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["provider", "login"], name="one_breaker_per_login"),
            models.CheckConstraint(
                condition=Q(state=BreakerState.CLOSED) | Q(until__isnull=False, opened_at__isnull=False),
                name="breaker_open_until_a_moment",
            ),
        ]
        triggers = [steps_trigger(BREAKER)]

    def __str__(self) -> str:
        return f"breaker of {self.provider} {self.login} ({self.state})"

    @property
    def may_be_tried(self) -> bool:
        """Return whether its moment has come and nobody tries it yet."""
        return is_due(self.state, self.until)


class TranscriptLine(models.Model):
    """One line of a provider session's transcript, word for word: the copy from which any host can resume it.

    `path` is empty for the session itself and names a subagent's transcript below it. Lines come in the order of their ids.
    """

    project = models.CharField(max_length=255, help_text="the provider's name of the directory it worked in")
    session_id = models.CharField(max_length=80)
    path = models.CharField(max_length=255, blank=True)
    uuid = models.CharField(max_length=64, blank=True, help_text="the line's own, where it has one")
    line = models.TextField(help_text="JSON; not jsonb, which refuses a NUL")
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [
            models.Index(fields=["session_id", "path", "id"], name="transcript_session"),
            BrinIndex(fields=["at"], name="transcript_at"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["session_id", "project", "path", "uuid"], condition=~Q(uuid=""), name="transcript_line_once"
            )
        ]

    def __str__(self) -> str:
        return f"transcript line {self.pk} of session {self.session_id}"


class ProviderCheck(models.Model):
    """How a CLI of a certain version did in the check of its provider. `cases` are {case, kept, sentence} in their order."""

    provider = models.CharField(max_length=40)
    version = models.CharField(max_length=80, blank=True)
    cases = models.JSONField(default=list)
    kept = models.BooleanField(help_text="whether it kept everything")
    at = models.DateTimeField(db_default=Now(), editable=False)
    by = models.CharField(max_length=120)

    class Meta:
        indexes = [models.Index(fields=["provider", "-at"], name="check_of_provider")]

    def __str__(self) -> str:
        return f"check of {self.provider} {self.version}".strip()
